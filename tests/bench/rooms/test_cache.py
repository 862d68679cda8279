import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from isonomy import IsonomyError
from isonomy.bench.data.rooms import cache
from isonomy.bench.data.rooms.cache import cached
from isonomy.bench.data.rooms.noise import noisy
from isonomy.bench.data.rooms.sample import generate

SIZE = (64, 64)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "BLOCK", 4)
    return tmp_path / "rooms" / f"v{cache.VERSION}" / "train-64x64-1"


@pytest.fixture
def made(monkeypatch):
    """The rooms and cameras that are made from now on."""
    calls = []

    def counted(number, size, camera=0):
        calls.append((number, camera))
        return generate(number, size, camera)

    monkeypatch.setattr(cache, "generate", counted)
    return calls


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def equal(split, indices, samples):
    """Whether these samples of a split are those, bit for bit."""
    for name, column in split._asdict().items():
        expected = np.stack([getattr(sample, name) for sample in samples])
        found = column[indices]
        if name == "image":
            assert found.dtype == np.uint8
            found = found / np.float32(255)
        assert found.dtype == expected.dtype
        if found.tobytes() != expected.tobytes():
            return False
    return True


def test_what_is_read_is_what_is_made():
    split = cached("val", 6, (64, 96))
    assert [len(column) for column in split] == [6] * 8
    chosen = np.array([5, 0, 3, 3])
    assert equal(split, chosen, [generate(1_000_000 + i, (64, 96)) for i in chosen.tolist()])
    assert not equal(split, chosen, [generate(i, (64, 96)) for i in chosen.tolist()])


def test_splits_have_no_room_in_common():
    rooms = {split: {cache.locate(split, i, 3)[0] for i in (0, 2_999_999)} for split in cache.FIRST}
    assert rooms == {"train": {0, 999_999}, "val": {1_000_000, 1_999_999}, "test": {2_000_000, 2_999_999}}


def test_scans_are_cameras_of_the_same_room(made):
    split = cached("train", 5, SIZE, scans=2)
    assert made == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert equal(split, range(5), [generate(number, SIZE, camera) for number, camera in made])
    # With fewer scans a room, the samples are some of those.
    assert equal(cached("train", 2, SIZE), [1], [generate(1, SIZE, 0)])


def test_noise_is_noisy_s_with_the_sample_s_index():
    split = cached("val", 2, SIZE, scans=2, noise=True)
    assert equal(split, [1], [noisy(generate(1_000_000, SIZE, 1), 1, 0)])
    assert equal(cached("val", 2, SIZE, scans=2), [1], [generate(1_000_000, SIZE, 1)])


def test_a_larger_split_makes_the_new_samples_only(made, folder):
    cached("train", 3, SIZE)
    assert made == [(0, 0), (1, 0), (2, 0)]
    made.clear()
    larger = cached("train", 9, SIZE)
    assert made == [(i, 0) for i in range(3, 9)]
    assert files(folder) == ["00000.npy", "00001.npy", "00002.npy"]
    assert equal(larger, range(9), [generate(i, SIZE) for i in range(9)])
    made.clear()
    assert len(cached("train", 2, SIZE).image) == 2
    assert made == []


def test_the_first_of_two_sizes_stays_open_while_the_block_grows():
    first = cached("train", 2, SIZE)
    cached("train", 4, SIZE)
    assert equal(first, range(2), [generate(i, SIZE) for i in range(2)])


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_an_index_outside_of_the_split_is_refused(index):
    cached("train", 4, SIZE)
    with pytest.raises(IndexError, match="of 3"):
        cached("train", 3, SIZE).label[[0, index]]


def test_what_is_read_belongs_to_the_reader(folder):
    split = cached("train", 2, SIZE)
    before = (folder / "00000.npy").read_bytes()
    for column in split:
        column[[0, 1]][:] = 1
        with pytest.raises(ValueError, match="read-only"):
            column._blocks[0][:] = 1
    assert (folder / "00000.npy").read_bytes() == before
    assert equal(split, [0], [generate(0, SIZE)])


def test_an_interruption_costs_no_more_than_its_block(monkeypatch, folder, made):
    def interrupted(number, size, camera=0):
        if number == 6:
            raise KeyboardInterrupt
        return generate(number, size, camera)

    monkeypatch.setattr(cache, "generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached("train", 12, SIZE)
    assert files(folder) == ["00000.npy"]
    monkeypatch.undo()
    monkeypatch.setenv("ISONOMY_CACHE", str(folder.parents[2]))
    monkeypatch.setattr(cache, "BLOCK", 4)
    assert equal(cached("train", 12, SIZE), range(12), [generate(i, SIZE) for i in range(12)])


def make(count):
    cached("train", count, SIZE)


def test_a_killed_process_leaves_whole_blocks_and_what_it_left_over_is_removed_later(folder, monkeypatch):
    process = multiprocessing.get_context("fork").Process(target=make, args=(4000,))
    process.start()
    deadline = time.monotonic() + 60
    # Killed with a block done and another one begun.
    while not (any(folder.glob("*.npy")) and any(folder.glob(".*"))):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = sorted(folder.glob("*.npy"))
    assert done
    for path in done:
        assert len(cache._open(path, cache._record(SIZE))) == 4
    count = 4 * len(done) + 4
    begun = folder / f".{len(done):05}.npy.killed"
    begun.write_bytes(b"half a block")
    cached("train", count, SIZE)
    assert begun.exists()  # it might be another process's that is at work
    os.utime(begun, (0, 0))
    (folder / f"{len(done):05}.npy").unlink()
    split = cached("train", count, SIZE)
    assert not begun.exists()
    assert equal(split, [0, count - 1], [generate(0, SIZE), generate(count - 1, SIZE)])


def grow(counts):
    for count in counts:
        split = cached("train", count, SIZE)
        assert (split.image[range(count)][:, 0, 0, 0] == np.arange(count)).all()


def test_processes_that_make_splits_of_many_sizes_do_not_meet_in_a_block(monkeypatch, folder):
    blank = generate(0, SIZE)
    monkeypatch.setattr(
        cache, "generate", lambda number, size, camera: blank._replace(image=np.full_like(blank.image, number / 255))
    )
    context = multiprocessing.get_context("fork")
    orders = [np.random.default_rng(n).permutation(40).tolist() for n in range(4)]
    processes = [context.Process(target=grow, args=([count + 1 for count in order],)) for order in orders]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert len(files(folder)) == 10


def test_a_shorter_block_that_another_process_put_in_its_place_grows_again(monkeypatch, folder):
    write = cache._write
    cached("train", 2, SIZE)
    shorter = (folder / "00000.npy").read_bytes()

    def overtaken(path, *arguments):
        write(path, *arguments)
        path.write_bytes(shorter)
        monkeypatch.setattr(cache, "_write", write)

    monkeypatch.setattr(cache, "_write", overtaken)
    assert equal(cached("train", 4, SIZE), range(4), [generate(i, SIZE) for i in range(4)])


def test_an_unfinished_file_that_is_gone_before_it_is_looked_at_is_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / ".00000.npy.gone").symlink_to("nowhere")
    assert equal(cached("train", 1, SIZE), [0], [generate(0, SIZE)])


def test_processes_that_make_the_same_split_agree(folder):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=make, args=(count,)) for count in (10, 12, 12)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert files(folder) == ["00000.npy", "00001.npy", "00002.npy"]
    assert equal(cached("train", 12, SIZE), range(12), [generate(i, SIZE) for i in range(12)])


def spoil(content, how):
    return {
        "empty": b"",
        "garbage": b"garbage" * 100,
        "header": content[:100],
        "truncated": content[:-1],
        "longer": content + b"x",
        "unclosed": content.replace(b"(", b" ", 1),
    }[how]


@pytest.mark.parametrize("how", ["empty", "garbage", "header", "truncated", "longer", "unclosed", "size"])
def test_a_damaged_file_is_named_with_the_way_out(folder, how):
    cached("train", 8, SIZE)
    path = folder / "00001.npy"
    if how == "size":
        cached("train", 8, (64, 65))
        path.write_bytes((folder.parent / "train-64x65-1" / "00001.npy").read_bytes())
    else:
        path.write_bytes(spoil(path.read_bytes(), how))
    with pytest.raises(IsonomyError, match=r"00001\.npy cannot be read .*: delete it, and it is made anew"):
        cached("train", 8, SIZE)
    path.unlink()
    assert equal(cached("train", 8, SIZE), [7], [generate(7, SIZE)])


def test_a_folder_that_cannot_be_written_is_named_but_read_where_all_is_there(monkeypatch, tmp_path):
    cached("train", 4, SIZE)
    monkeypatch.setattr(cache, "_write", None)
    assert len(cached("train", 4, SIZE).image) == 4
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ISONOMY_CACHE", str(tmp_path / "file"))
    with pytest.raises(IsonomyError, match=r"ISONOMY_CACHE .*not a folder"):
        cached("train", 4, SIZE)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("ISONOMY_CACHE", "~/own")
    assert cache.home() == Path("/home/somebody/own")
    monkeypatch.setenv("ISONOMY_CACHE", "")
    assert cache.home() == Path("/xdg/isonomy")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.home() == Path("/home/somebody/.cache/isonomy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian", 1, SIZE), "split 'trian': did you mean 'train'"),
        (("train", 0, SIZE), "count=0: choose from 1 to 1000000"),
        (("train", 1_000_001, SIZE), "count=1000001"),
        (("train", 1, (64, 600)), r"size=\(64, 600\)"),
    ],
)
def test_arguments_out_of_range_are_named_before_anything_is_made(arguments, message, tmp_path):
    with pytest.raises(IsonomyError, match=message):
        cached(*arguments)
    with pytest.raises(IsonomyError, match="scans=0"):
        cached("train", 1, SIZE, scans=0)
    assert not list(tmp_path.iterdir())
