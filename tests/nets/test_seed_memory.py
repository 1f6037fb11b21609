import torch

from rayseg.nets.seed_memory import SeedMemory


def plane(*cells):
    return torch.tensor([cells], dtype=torch.uint8)


def test_an_image_has_its_cues_until_it_was_visited():
    memory = SeedMemory()
    assert torch.equal(memory.recall(3, False, plane(0, 255)), plane(0, 255))
    memory.keep([(0, 3, False, plane(0, 254))])
    assert torch.equal(memory.recall(3, False, plane(0, 255)), plane(0, 254))
    assert torch.equal(memory.recall(2, False, plane(0, 255)), plane(0, 255))


def test_what_was_mirrored_lies_the_other_way_round_later():
    memory = SeedMemory()
    memory.keep([(0, 0, True, plane(0, 1, 2))])
    assert torch.equal(memory.recall(0, False, plane(9, 9, 9)), plane(2, 1, 0))
    assert torch.equal(memory.recall(0, True, plane(9, 9, 9)), plane(0, 1, 2))


def test_workers_keep_the_same_in_the_order_of_the_batch():
    shares = [[(0, 5, False, plane(1)), (2, 6, False, plane(2))], [(1, 5, False, plane(3))]]
    found = []
    for own in shares:
        memory = SeedMemory()
        memory.gather = lambda mine: shares
        memory.keep(own)
        found.append([memory.recall(n, False, plane(9)).item() for n in (5, 6)])
    assert found == [[3, 2], [3, 2]]


def test_it_travels_with_the_state():
    memory, again = torch.nn.Sequential(SeedMemory()), torch.nn.Sequential(SeedMemory())
    again.load_state_dict(memory.state_dict())
    assert again[0].recall(0, False, plane(7)).item() == 7
    memory[0].keep([(0, 2, False, plane(0, 255, 254))])
    again.load_state_dict(memory.state_dict())
    assert torch.equal(again[0].recall(2, False, plane(1, 1, 1)), plane(0, 255, 254))
    assert torch.equal(again[0].recall(0, False, plane(1, 1, 1)), plane(1, 1, 1))
