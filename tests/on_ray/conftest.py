"""One Ray for all tests of this folder: logical CPUs and GPUs, which may exceed the machine's."""

import copy
import os
import warnings

import pytest


@pytest.fixture(scope="package")
def cluster():
    import ray

    before = dict(os.environ)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "0.5"  # trainings are short here
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # a process less for each
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray refuses more GPUs than it lists
    from ray.data import DataContext

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, about its future versions
        DataContext.get_current()  # made here, since making it sets deprecated fields
        ray.init(
            address="local",  # not the one that another test may have started
            num_cpus=4,
            num_gpus=2,
            object_store_memory=200e6,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _own_data_context():
    from ray.data import DataContext

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # copying sets every field, also deprecated ones
        before = copy.deepcopy(DataContext.get_current())
    yield
    DataContext._set_current(before)
