"""rayseg: weakly supervised segmentation as a distributed batch system on Ray.

Importing this package loads neither torch nor ray; import the part that you need.
"""

__version__ = "0.1.0"
