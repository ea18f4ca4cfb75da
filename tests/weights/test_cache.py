"""`fetch` against a real server, a real file system and real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest

import tood
from tood.errors import ToodError
from tood.weights import FetchConfig, cache_folder, cache_path, fetch
from weights.file_server import FileServer, Served

CONTENT = np.random.default_rng(0).bytes(300_000)
QUICK = FetchConfig(timeout=300, attempts=3, pause=0.01)


def file_of(server: FileServer, served: Served) -> tuple[str, str]:
    return server.serve("/models/net-0123.pth", served), served.sha256[:8]


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ToodError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")} if folder.exists() else set()


def test_a_file_is_fetched_once(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT))
    path = fetch(url, prefix, QUICK)
    assert path == cache / "net-0123.pth" == cache_path(url)
    assert path.read_bytes() == CONTENT
    assert fetch(url, prefix, QUICK) == path
    assert len(server.asked) == 1
    assert files(cache) == {"net-0123.pth"}


def test_a_length_that_is_not_said_and_a_redirect_make_no_difference(server: FileServer) -> None:
    file_of(server, Served(CONTENT, length=False, etag=None))
    url = server.serve("/latest/net-0123.pth", Served(b"", location="/models/net-0123.pth"))
    assert fetch(url, Served(CONTENT).sha256, QUICK).read_bytes() == CONTENT


def leave_a_part(server: FileServer, served: Served, length: int) -> tuple[str, str]:
    """Lets a download be cut after so many bytes and given up."""
    url, prefix = file_of(server, served)
    served.always_cut = length
    refused(lambda: fetch(url, prefix, FetchConfig(attempts=1)), "the connection ended")
    served.always_cut = None
    return url, prefix


def test_a_later_call_goes_on_where_an_earlier_one_was_cut(server: FileServer, cache: Path) -> None:
    url, prefix = leave_a_part(server, Served(CONTENT), 123_456)
    assert cache_path(url).with_name("net-0123.pth.part").read_bytes() == CONTENT[:123_456]
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    first, second = server.asked
    assert (second.range, second.if_range, second.status) == ("bytes=123456-", '"v1"', 206)
    assert (first.sent, second.start, second.sent) == (123_456, 123_456, len(CONTENT) - 123_456)
    assert files(cache) == {"net-0123.pth"}


def test_a_cut_connection_is_taken_up_again_in_the_same_call(server: FileServer) -> None:
    url, prefix = file_of(server, Served(CONTENT, cuts=[100_000, 50_000, 1, 1, 1, 1]))
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert sum(asked.sent for asked in server.asked) == len(CONTENT), "no byte came twice"
    assert [asked.start for asked in server.asked[:3]] == [0, 100_000, 150_000]


def test_a_reset_connection_is_taken_up_again(server: FileServer) -> None:
    served = Served(CONTENT, cuts=[200_000], reset=True)
    url, prefix = file_of(server, served)
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_server_without_ranges_sends_all_of_it_again(server: FileServer) -> None:
    url, prefix = leave_a_part(server, Served(CONTENT, ranges=False), 1000)
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert server.asked[1].status == 200


def test_the_part_of_a_file_that_changed_is_given_up(server: FileServer) -> None:
    url, _ = leave_a_part(server, Served(CONTENT), 1000)
    changed = Served(CONTENT[::-1], etag='"v2"')
    server.serve("/models/net-0123.pth", changed)
    assert fetch(url, changed.sha256[:8], QUICK).read_bytes() == changed.content
    assert [asked.status for asked in server.asked] == [200, 200]


def test_a_part_of_another_file_without_etag_is_found_out_by_the_hash(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT, etag=None))
    cache.mkdir(parents=True)
    (cache / "net-0123.pth.part").write_bytes(b"\0" * 5000)
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert [asked.status for asked in server.asked] == [206, 200]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 7])
def test_a_part_as_long_as_the_file_or_longer(server: FileServer, cache: Path, length: int) -> None:
    url, prefix = file_of(server, Served(CONTENT))
    cache.mkdir(parents=True)
    (cache / "net-0123.pth.part").write_bytes((CONTENT + b"surplus")[:length])
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert [asked.status for asked in server.asked] == ([416] if length == len(CONTENT) else [416, 200])


def test_a_range_that_was_not_asked_for_is_not_taken(server: FileServer) -> None:
    served = Served(CONTENT)
    url, prefix = leave_a_part(server, served, 1000)
    served.shift = 10
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert [(asked.status, asked.start) for asked in server.asked[1:]] == [(206, 1010), (200, 0)]


def test_a_wrong_hash_leaves_nothing(server: FileServer, cache: Path) -> None:
    served = Served(CONTENT)
    url, _ = file_of(server, served)
    refused(lambda: fetch(url, "0123abcd", QUICK), url, "begins with 0123abcd", f"got {served.sha256[:8]}", "removed")
    assert files(cache) == set()
    assert len(server.asked) == 1, "the same bytes would come again"


@pytest.mark.parametrize("status", [404, 403, 410, 401])
def test_what_the_server_refuses_is_not_asked_for_again(server: FileServer, cache: Path, status: int) -> None:
    url, prefix = file_of(server, Served(CONTENT, answers=[status] * 9))
    refused(lambda: fetch(url, prefix, QUICK), url, f"the server answered {status}", f"put at {cache / 'net-0123.pth'}")
    assert len(server.asked) == 1
    assert files(cache) == set()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_the_server_s_own_trouble_is_waited_for(server: FileServer, status: int) -> None:
    served = Served(CONTENT, answers=[status] * 2)
    url, prefix = file_of(server, served)
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert len(server.asked) == 3
    other = server.serve("/models/other.pth", Served(CONTENT, answers=[status] * 9))
    refused(lambda: fetch(other, prefix, QUICK), other, f"answered {status}", "3 attempts in a row")
    assert len(server.asked) == 6


def test_a_connection_that_is_cut_again_and_again_is_given_up(server: FileServer, cache: Path) -> None:
    served = Served(CONTENT, always_cut=1000, ranges=False)
    url, prefix = file_of(server, served)
    refused(lambda: fetch(url, prefix, QUICK), url, "ended 299,000 bytes early", "3 attempts", str(cache))
    assert not cache_path(url).exists()
    assert len(server.asked) == 3


def test_a_server_that_falls_silent_is_given_up(server: FileServer) -> None:
    url, prefix = file_of(server, Served(CONTENT, pause=600))
    started = time.monotonic()
    refused(lambda: fetch(url, prefix, FetchConfig(timeout=0.2, attempts=1)), url, "no answer within 0.2 seconds")
    assert time.monotonic() - started < 300


def test_without_a_network_the_sentence_says_where_to_put_the_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers there
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/net-0123.pth"
        waits = SimpleNamespace(sleep=lambda _: pytest.fail("it waits for a network that is not there"))
        monkeypatch.setattr("tood.weights.cache.time", waits)
        refused(lambda: fetch(url, "0123abcd"), url, "Connection refused", f"put at {cache / 'net-0123.pth'}")


def test_a_file_put_there_by_hand_is_checked_and_used(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT))
    cache.mkdir(parents=True)
    cache_path(url).write_bytes(CONTENT)
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert not server.asked
    cache_path(url).write_bytes(CONTENT[:-1])
    refused(lambda: fetch(url, prefix, QUICK), str(cache_path(url)), f"begins with {prefix}", "removed")
    assert files(cache) == set()
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT


def test_only_the_web_is_fetched_from(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(CONTENT)
    prefix = Served(CONTENT).sha256[:8]
    for url in (
        f"file://{tmp_path}/net.pth",
        "ftp://127.0.0.1/net.pth",
        "net.pth",
        "https://",
        "https://a/",
        "http://[",
    ):
        refused(lambda url=url: fetch(url, prefix, QUICK), url, "not the web address of a file")
    local = f"file://{quote(str(tmp_path))}/net.pth"
    for elsewhere, part in ((local, f"'{local}' is not allowed"), ("ftp://127.0.0.1/net.pth", "redirects to ftp://")):
        url = server.serve("/redirect.pth", Served(b"", location=elsewhere))
        refused(lambda url=url: fetch(url, prefix, QUICK), url, part)


def test_a_secure_server_is_trusted_by_its_certificate_and_keeps_to_https(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here to make a certificate with")
    pem = tmp_path / "server.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pem, "-out", tmp_path / "cert.pem"]
    subprocess.run([*command, *names], capture_output=True, check=True)
    pem.write_text(pem.read_text() + (tmp_path / "cert.pem").read_text())
    served = Served(CONTENT)
    with FileServer(pem).running() as secure:
        url = secure.serve("/net.pth", served)
        refused(lambda: fetch(url, served.sha256, QUICK), url, "CERTIFICATE_VERIFY_FAILED")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert fetch(url, served.sha256, QUICK).read_bytes() == CONTENT
        plain = server.serve("/other.pth", served)
        lower = secure.serve("/other.pth", Served(b"", location=plain))
        refused(lambda: fetch(lower, served.sha256, QUICK), lower, f"redirects to {plain}, which is not as safe")
    assert not server.asked


def test_the_proxy_of_the_environment_is_used(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(CONTENT)
    server.serve("http://weights.invalid/net-0123.pth", served)  # what a proxy is asked for
    monkeypatch.setenv("http_proxy", server.address)
    assert fetch("http://weights.invalid/net-0123.pth", served.sha256, QUICK).read_bytes() == CONTENT


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TOOD_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "tood"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache_folder() == tmp_path / ".cache" / "tood"
    monkeypatch.setenv("TOOD_CACHE", "~/weights")
    assert cache_folder() == tmp_path / "weights"


# --- other processes, and disks that do not take it -----------------------------------------------------------------

SCRIPT = """
import sys
from tood.errors import ToodError
from tood.weights import FetchConfig, fetch
url, prefix = sys.argv[1:3]
print("ready", flush=True)
sys.stdin.readline()
try:
    print(fetch(url, prefix, FetchConfig(timeout=300, attempts=3, pause=0.01)))
except ToodError as error:
    print(error)
    sys.exit(2)
"""


def start(
    url: str, prefix: str, *before: str, code: str = SCRIPT, stderr: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-c", code, url, prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tood.__file__).parents[1])},
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate("go\n", timeout=600)
    assert errors == ""
    return process.returncode, output.removeprefix("ready\n").strip()


def test_a_terminal_sees_a_bar(server: FileServer) -> None:
    pty = pytest.importorskip("pty")
    url, prefix = file_of(server, Served(CONTENT, pause=0.3))
    ours, theirs = pty.openpty()
    process = start(url, prefix, stderr=theirs)
    process.communicate("go\n", timeout=600)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # at its end; a read gives a part of what is there
        while block := os.read(ours, 100_000):
            shown += block.decode(errors="replace")
    os.close(ours)
    assert process.returncode == 0
    assert "net-0123.pth" in shown
    assert "300.0 kB" in shown


def test_of_two_processes_one_fetches_and_both_have_the_file(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT, pause=0.4))
    processes = [start(url, prefix) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [finish(process) for process in processes] == [(0, str(cache / "net-0123.pth"))] * 2
    assert [asked.sent for asked in server.asked] == [len(CONTENT)]
    assert (cache / "net-0123.pth").read_bytes() == CONTENT


def test_what_a_killed_process_leaves_is_gone_on_with(server: FileServer, cache: Path) -> None:
    served = Served(CONTENT, pause=600)
    url, prefix = file_of(server, served)
    process = start(url, prefix)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    part = cache / "net-0123.pth.part"
    deadline = time.monotonic() + 600
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    served.pause = 0
    there = part.stat().st_size
    assert fetch(url, prefix, QUICK).read_bytes() == CONTENT
    assert (server.asked[1].start, server.asked[1].sent) == (there, len(CONTENT) - there)
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_a_file_system_that_takes_no_more_is_one_sentence_and_leaves_nothing(server: FileServer, cache: Path) -> None:
    resource = pytest.importorskip("resource")
    assert resource
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + SCRIPT
    url, prefix = file_of(server, Served(CONTENT))
    code, text = finish(start(url, prefix, code=limited))
    assert code == 2
    assert text.startswith(f"{url} cannot be kept in {cache / 'net-0123.pth'}: File too large; make room there")
    assert "TOOD_CACHE" in text
    assert files(cache) == set()


def mounted(options: str, folder: Path, then: str = "") -> list[str]:
    """The beginning of a command that runs with a small file system of its own in that folder."""
    tool = shutil.which("unshare")
    if tool is None:
        pytest.skip("there is no unshare here to mount a file system with")
    namespaces = [tool, "--user", "--map-root-user", "--mount"]
    folder.mkdir(parents=True)
    script = f'mount -t tmpfs -o size=100k tmpfs "{folder}" && {then or ":"} && mount -o remount,{options} "{folder}"'
    if subprocess.run([*namespaces, "sh", "-c", script], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    return [*namespaces, "sh", "-c", f'{script} && exec "$@"', "sh"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT))
    code = SCRIPT.replace("    sys.exit(2)", f"    import os; print(os.listdir({str(cache)!r}))\n    sys.exit(2)")
    returned, text = finish(start(url, prefix, *mounted("rw", cache.parent), code=code))
    assert returned == 2
    sentence, left = text.splitlines()
    assert f"{url} cannot be kept in {cache / 'net-0123.pth'}: No space left on device" in sentence
    assert left == "['.net-0123.pth.lock']"


def test_a_read_only_disk_is_one_sentence(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT))
    code, text = finish(start(url, prefix, *mounted("ro", cache.parent)))
    assert code == 2
    assert f"{url} cannot be kept in {cache / 'net-0123.pth'}: Read-only file system" in text
    assert not server.asked


def test_a_file_on_a_read_only_disk_is_used(server: FileServer, cache: Path, tmp_path: Path) -> None:
    served = Served(CONTENT[:5000])
    url, prefix = file_of(server, served)
    (tmp_path / "copy").write_bytes(served.content)
    then = f'mkdir "{cache}" && cp "{tmp_path}/copy" "{cache}/net-0123.pth"'
    assert finish(start(url, prefix, *mounted("ro", cache.parent, then))) == (0, str(cache / "net-0123.pth"))
    assert not server.asked


def test_a_file_in_the_place_of_the_cache_is_one_sentence(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT))
    cache.parent.write_text("")
    refused(lambda: fetch(url, prefix, QUICK), url, f"cannot be kept in {cache}", "Not a directory", "TOOD_CACHE")
    assert not server.asked


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(server: FileServer, cache: Path) -> None:
    url, prefix = file_of(server, Served(CONTENT))
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    refused(lambda: fetch(url, prefix, QUICK), url, "cannot be kept in", "Permission denied")
