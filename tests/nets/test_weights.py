import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from rayseg.nets.backbones import build_trunk
from rayseg.nets.weights import find_facts, load_into, read_facts, read_tensors, to_safetensors


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def refusal_of(path):
    with pytest.raises(ValueError, match=str(path)) as caught:
        read_tensors(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_tensors_come_back_from_a_path(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    tensors = {"a.weight": torch.rand(2, 3), "b": torch.arange(3)}
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(tensors, path)
    found = read_tensors(str(path))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("legacy", [False, True])
def test_file_with_code_in_it_is_refused_and_not_run(tmp_path, legacy):
    path, trace = tmp_path / "weights.pth", tmp_path / "was_here"
    torch.save({"a": Malicious(trace)}, path, _use_new_zipfile_serialization=not legacy)
    assert "must hold plain tensors only" in refusal_of(path)
    assert not trace.exists()


def test_plain_pickle_with_code_in_it_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "weights.pth", tmp_path / "was_here"
    path.write_bytes(pickle.dumps({"a": Malicious(trace)}))
    refusal_of(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"<html>not weights</html>",
        b"PK\x03\x04" + bytes(60),
        b"\x80\x02}q\x00.",
        bytes(99),
    ],
    ids=["empty", "letter", "html", "zip", "pickle", "zeros"],
)
def test_corrupt_file_is_refused_in_one_line(tmp_path, suffix, data):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(data)
    refusal_of(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_file_is_refused_in_one_line(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save({"a": torch.rand(50, 50)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refusal_of(path)


@pytest.mark.parametrize("held", [[1], {"a": 1}, {"a": {"b": torch.rand(1)}}, {0: torch.rand(1)}])
def test_anything_but_named_tensors_is_refused(tmp_path, held):
    path = tmp_path / "weights.pth"
    torch.save(held, path)
    assert "must hold" in refusal_of(path)


def test_missing_file_is_named(tmp_path):
    for read in (read_tensors, read_facts):
        with pytest.raises(FileNotFoundError, match=r"none.pth does not exist"):
            read(str(tmp_path / "none.pth"))


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"weight": torch.rand(2, 3)}, "file.pth.*another network: 1 keys are missing.*bias"),
        (
            {"weight": torch.rand(2, 3), "bias": torch.rand(2), "x": torch.rand(1)},
            "1 keys are left over, such as x",
        ),
        (
            {"weight": torch.rand(2, 4), "bias": torch.rand(2)},
            r"weight must be \(2, 3\), got \(2, 4\)",
        ),
    ],
)
def test_weights_of_another_network_are_refused_and_not_loaded(tensors, reason):
    network = nn.Linear(3, 2)
    before = network.weight.clone()
    with pytest.raises(ValueError, match=reason) as caught:
        load_into(network, tensors, "file.pth")
    assert "\n" not in str(caught.value)
    assert torch.equal(network.weight, before)


def test_optional_keys_may_be_missing_or_left_over_or_of_another_shape():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first = {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}
    load_into(network, {**first, "1.weight": torch.ones(5, 2)}, "file.pth", optional=("1.",))
    assert network[0].weight.eq(1).all()


def test_trunk_takes_weights_by_path(tmp_path):
    plain = build_trunk("resnet18")
    names = ("layer1", "layer2", "layer3", "layer4")
    tensors = {
        f"{name}.{key}": value
        for name, stage in zip(names, list(plain)[1:], strict=True)
        for key, value in stage.state_dict().items()
        if "num_batches" not in key  # as in older files
    }
    stem = {"0.": "conv1.", "1.": "bn1."}
    for key, value in plain.stem.state_dict().items():
        tensors[stem[key[:2]] + key[2:]] = value
    path = str(tmp_path / "weights.pth")
    torch.save(tensors, path)
    found = build_trunk("resnet18", 8, path)
    for one, other in zip(found.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="another network"):
        build_trunk("resnet34", 16, path)


def test_facts_come_back(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_safetensors(nn.Linear(2, 2), {"classes": ["a"], "stride": 16}))
    assert read_facts(str(path)) == {"classes": ["a"], "stride": 16}


def test_safetensors_of_others_are_refused_with_the_reason(tmp_path):
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"a": torch.rand(1)}, path)
    with pytest.raises(ValueError, match="not written by rayseg"):
        read_facts(str(path))
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_facts(str(path))


def test_channels_last_network_can_be_written(tmp_path):
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_safetensors(network, {}))
    assert torch.equal(read_tensors(str(path))["weight"], network.weight)


@pytest.mark.data
def test_real_mobilenet_weights_load(real_data):
    trunk = build_trunk("mobilenet_v2", 16, str(real_data / "weights" / "mobilenet_v2.pth")).eval()
    fresh = build_trunk("mobilenet_v2", 16)
    assert not torch.equal(trunk.stem[0][0].weight, fresh.stem[0][0].weight)
    with torch.no_grad():
        assert torch.isfinite(trunk(torch.rand(1, 3, 64, 64))).all()
    with pytest.raises(ValueError, match="another network"):
        build_trunk("resnet18", 16, str(real_data / "weights" / "mobilenet_v2.pth"))


def test_a_network_is_the_same_bytes_every_time(tmp_path):
    """By which what follows from weights knows that they are the same."""
    network, facts = torch.nn.Linear(3, 3), {"trunk": "resnet18", "stride": 16}
    assert len({to_safetensors(network, facts) for _ in range(20)}) == 1
    (tmp_path / "w.safetensors").write_bytes(to_safetensors(network, facts))
    assert find_facts(str(tmp_path / "w.safetensors")) == facts
