import numpy as np
import pytest


@pytest.fixture(scope="session")
def disc():
    """A filled circle of a radius of 20 pixels about the middle of 61x81 ones."""
    y, x = np.mgrid[:61, :81]
    return (x - 40) ** 2 + (y - 30) ** 2 <= 20**2
