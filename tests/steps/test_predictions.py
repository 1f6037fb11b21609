"""What predictions follow from."""

import pytest

from rayseg.stages import InstancePrediction
from rayseg.steps.predictions import prediction_identity


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "start.safetensors"
    path.write_bytes(b"numbers")
    return str(path)


def test_a_smaller_batch_is_the_same_prediction_and_another_score_is_not(weights):
    default = prediction_identity(InstancePrediction(), weights)
    assert prediction_identity(InstancePrediction(batch_size=1), weights) == default
    assert prediction_identity(InstancePrediction(min_score=0.2), weights) != default
