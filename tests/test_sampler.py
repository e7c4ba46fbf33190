from hypothesis import given
from hypothesis import strategies as st

from mbv2det.data.sampler import OrderedShard, ShuffledShard

SIZES = st.integers(1, 50)
WORLDS = st.integers(1, 8)


def shuffled(num_images, rank=0, world=1, seed=0, epoch=0):
    sampler = ShuffledShard(num_images, seed, rank, world)
    sampler.set_epoch(epoch)
    return [key.index for key in sampler]


def ordered(num_images, world):
    return [list(OrderedShard(num_images, rank, world)) for rank in range(world)]


@given(SIZES, WORLDS)
def test_shuffled_shares_are_equally_long_and_disjoint(num_images, world):
    shares = [shuffled(num_images, rank, world) for rank in range(world)]
    together = [index for share in shares for index in share]
    assert {len(share) for share in shares} == {num_images // world}
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(num_images))


@given(SIZES)
def test_shuffled_share_of_one_process_is_complete(num_images):
    assert sorted(shuffled(num_images)) == list(range(num_images))


@given(SIZES, WORLDS)
def test_steps_of_all_processes_follow_the_order_of_one(num_images, world):
    shares = [shuffled(num_images, rank, world) for rank in range(world)]
    by_step = [index for step in zip(*shares, strict=True) for index in step]
    assert by_step == shuffled(num_images)[: len(by_step)]


def test_order_is_a_function_of_seed_and_epoch():
    assert shuffled(50, seed=3, epoch=2) == shuffled(50, seed=3, epoch=2)
    orders = {tuple(shuffled(50, seed=s, epoch=e)) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_iterating_twice_gives_the_same_order():
    sampler = ShuffledShard(50, seed=0)
    assert list(sampler) == list(sampler)


def test_images_left_out_of_an_epoch_are_in_others():
    # 7 images, 2 processes: one is left out of each epoch, none of all 30 (each with 1/7^30).
    seen = {i for e in range(30) for rank in range(2) for i in shuffled(7, rank, 2, epoch=e)}
    assert seen == set(range(7))


def test_keys_contain_the_epoch_and_are_counted():
    sampler = ShuffledShard(5, seed=0)
    sampler.set_epoch(3)
    assert all(key.epoch == 3 and key.counted for key in sampler)


@given(SIZES, WORLDS)
def test_ordered_shares_count_every_image_once(num_images, world):
    counted = [key.index for share in ordered(num_images, world) for key in share if key.counted]
    assert sorted(counted) == list(range(num_images))


@given(SIZES, WORLDS)
def test_ordered_shares_are_equally_long_with_the_fewest_repeats(num_images, world):
    shares = ordered(num_images, world)
    repeats = [key for share in shares for key in share if not key.counted]
    assert {len(share) for share in shares} == {len(OrderedShard(num_images, 0, world))}
    assert len(repeats) == -num_images % world
    assert all(0 <= key.index < num_images for key in repeats)


def test_ordered_share_of_one_process_is_in_order():
    assert [key.index for key in OrderedShard(5)] == [0, 1, 2, 3, 4]
