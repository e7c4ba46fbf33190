"""Files by their address: resumed, checked, kept, and refused in one line."""

import hashlib
import random
from threading import Thread

import pytest
from file_server import served

from mbv2det.errors import ConfigError
from mbv2det.weights.download import download

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with served() as running:
        running.files["/a/weights.bin"] = CONTENT
        yield running


def refusal(address):
    with pytest.raises(ConfigError) as error:
        download(address)
    return str(error.value)


def left_in(folder):
    files = (path.name for path in folder.rglob("*") if path.is_file())
    return {name for name in files if not name.endswith(".lock")}


def interrupted(server, tmp_path):
    """Downloads the first third, until the connection breaks; returns the part."""
    server.cuts = [100_000, 0]
    refusal(f"{server.address}/a/weights.bin")
    server.requests.clear()
    (part,) = tmp_path.rglob("*.part")
    return part


@pytest.mark.parametrize("checksum", ["", f"#sha256={SHA256}", f"#sha256={SHA256.upper()}"])
def test_a_file_is_downloaded_once(checksum, server, tmp_path):
    address = f"{server.address}/a/weights.bin{checksum}"
    path = download(address)
    assert path.name == "weights.bin"
    assert path.read_bytes() == CONTENT
    assert download(address) == path
    assert server.requests == [("/a/weights.bin", None)]
    assert left_in(tmp_path) == {"weights.bin"}


def test_files_of_one_name_lie_apart(server):
    server.files["/b/weights.bin"] = b"another"
    server.files["/b/weights.bin?version=2"] = b"newer"
    download(f"{server.address}/a/weights.bin")
    assert download(f"{server.address}/b/weights.bin").read_bytes() == b"another"
    assert download(f"{server.address}/b/weights.bin?version=2").read_bytes() == b"newer"
    assert download(f"{server.address}/a/weights.bin").read_bytes() == CONTENT


def test_an_interrupted_download_goes_on_where_it_ended(server, tmp_path):
    interrupted(server, tmp_path)
    path = download(f"{server.address}/a/weights.bin#sha256={SHA256}")
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/a/weights.bin", "bytes=100000-")]
    assert left_in(tmp_path) == {"weights.bin"}


def test_a_broken_connection_is_taken_up_again(server):
    server.cuts = [50_000, 120_000]
    path = download(f"{server.address}/a/weights.bin")
    assert path.read_bytes() == CONTENT
    ranges = [asked for _, asked in server.requests]
    assert ranges == [None, "bytes=50000-", "bytes=120000-"]


def test_a_server_without_ranges_sends_the_whole_file_again(server, tmp_path):
    interrupted(server, tmp_path)
    server.ranged = False
    assert download(f"{server.address}/a/weights.bin").read_bytes() == CONTENT


def test_a_file_that_has_changed_is_downloaded_from_its_beginning(server, tmp_path):
    interrupted(server, tmp_path)
    server.files["/a/weights.bin"] = CONTENT[::-1]
    assert download(f"{server.address}/a/weights.bin").read_bytes() == CONTENT[::-1]


def test_nothing_is_resumed_where_the_server_does_not_mark_its_files(server, tmp_path):
    server.marked = False
    interrupted(server, tmp_path)
    assert download(f"{server.address}/a/weights.bin").read_bytes() == CONTENT
    assert server.requests == [("/a/weights.bin", None)]


def test_a_part_as_long_as_the_file_is_replaced(server, tmp_path):
    interrupted(server, tmp_path).write_bytes(bytes(len(CONTENT)))
    path = download(f"{server.address}/a/weights.bin#sha256={SHA256}")
    assert path.read_bytes() == CONTENT


def test_a_file_shorter_than_the_server_promised_is_not_taken(server, tmp_path):
    server.cuts = [70_000, 0]
    message = refusal(f"{server.address}/a/weights.bin")
    assert f"{server.address}/a/weights.bin: cannot be downloaded (" in message
    assert "the connection ended after 70000 of 300000 bytes" in message
    assert left_in(tmp_path) == {"weights.bin.part", "weights.bin.mark"}
    server.cuts = []
    assert download(f"{server.address}/a/weights.bin").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(server, tmp_path):
    message = refusal(f"{server.address}/a/weights.bin#sha256={'0' * 64}")
    assert f"expected a file of sha256 {'0' * 64}, got {SHA256}" in message
    assert left_in(tmp_path) == set()


def test_a_damaged_file_in_the_cache_is_downloaded_again(server):
    address = f"{server.address}/a/weights.bin#sha256={SHA256}"
    path = download(address)
    path.write_bytes(CONTENT[:-1] + b"x")
    assert download(address).read_bytes() == CONTENT


def test_a_missing_file_is_refused(server, tmp_path):
    message = refusal(f"{server.address}/a/none.bin")
    assert "/a/none.bin: cannot be downloaded (" in message
    assert "404" in message
    assert "\n" not in message
    assert download(f"{server.address}/a/weights.bin").read_bytes() == CONTENT


def test_without_a_connection_the_line_says_what_to_do(server, capfd):
    server.shutdown()
    server.server_close()
    message = refusal(f"{server.address}/a/weights.bin")
    assert message.endswith(
        "download it elsewhere and give the file: --weights=weights.bin, or "
        "import_weights FORMAT weights.bin"
    )
    assert "\n" not in message
    assert "retry" not in capfd.readouterr().err.lower()


@pytest.mark.parametrize("fragment", ["sha256=123", "md5=0", f"sha256={'g' * 64}"])
def test_another_checksum_is_refused_before_the_download(fragment, server):
    message = refusal(f"{server.address}/a/weights.bin#{fragment}")
    assert f"expected #sha256= and 64 hexadecimal digits after the address, got #{fragment}" in (
        message
    )
    assert server.requests == []


def test_the_address_of_a_folder_is_refused(server):
    assert "expected the address of a file, got that of a folder" in refusal(server.address)


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    message = refusal(f"{server.address}/a/weights.bin")
    assert "cannot be written (Not a directory); TORCH_HOME sets another folder" in message


def test_two_processes_download_a_file_once(server):
    address, paths = f"{server.address}/a/weights.bin", []
    threads = [Thread(target=lambda: paths.append(download(address))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in paths] == [True] * 4
    assert len(server.requests) == 1
