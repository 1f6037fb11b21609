"""What `rayseg tune` looks through: one file a method or refiner, named after it.

A space has, by name:

- SPACE: field of the method to the domain that random search and Optuna draw from.
- GRID: field to the values that grid search combines; a part of SPACE, the source's own values.
- READ_OFF: field to values that every trial scores at once, from one trajectory. It is never drawn.
  A field of another part, such as box_crf.foreground, is written with the part's name.

METRIC is made as large as MODE says. The source of a range is at the top of its file.
"""
