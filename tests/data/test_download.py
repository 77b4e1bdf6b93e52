"""Original files: the manifest, a mirror folder, and downloads from a server on the loopback interface."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pooch
import pytest

from mmsa_lib.data import download
from mmsa_lib.data.download import SourceFile, fetch, git_blob_sha1, manifest, source
from mmsa_lib.errors import DataError, UnknownNameError

CONTENT = b"features of an utterance\n" * 100


def entry(content: bytes = CONTENT, name: str = "a file.csv", blob_only: bool = False) -> SourceFile:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    sha256 = "" if blob_only else hashlib.sha256(content).hexdigest()
    commit = "0123456789abcdef0123456789abcdef01234567"
    return SourceFile(
        "set", "owner", "repo", commit, f"data/{name}", f"set/{name}", len(content), sha256, blob, "MIT", "x"
    )


class Server:
    """Answers GET with files by path; ``failures`` first answers 503; counts requests."""

    def __init__(self):
        self.files, self.requests, self.failures, self.cut = {}, [], 0, False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                body = outer.files.get(unquote(self.path))
                if outer.failures > 0:
                    outer.failures -= 1
                    return self.send_error(503)
                if body is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if outer.cut else body)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def put(self, file: SourceFile, content: bytes = CONTENT):
        self.files[f"/{file.owner}/{file.repo}/{file.commit}/{file.path}"] = content


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv(download.MIRROR_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch.core.time, "sleep", lambda seconds: None)
    running = Server()
    monkeypatch.setattr(download, "RAW_HOST", f"http://127.0.0.1:{running.http.server_port}")
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def mirror(monkeypatch, tmp_path):
    """A mirror with one file; reaching for the network would fail."""
    monkeypatch.delenv(download.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(download, "_from_network", lambda *a: pytest.fail("the network was used"))
    folder = tmp_path / "mirror"
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "a file.csv").write_bytes(CONTENT)
    return folder


def test_manifest_pins_and_verifies_every_file():
    files = manifest()
    assert len({file.local_path for file in files}) == len(files) > 40
    for file in files:
        assert len(bytes.fromhex(file.commit)) == 20
        assert len(bytes.fromhex(file.git_blob_sha1)) == 20
        assert file.sha256 == "" or len(bytes.fromhex(file.sha256)) == 32
        assert file.commit in file.url
        assert file.line().count(file.name) >= 1


def test_source_names_the_nearest_file():
    assert source("cmu-mosi/original/mosi_train.tsv").path == "texts/mosi/train.tsv"
    with pytest.raises(UnknownNameError, match=r"cmu-mosi/original/mosi_train\.tsv"):
        source("cmu-mosi/original/mosi_trian.tsv")


def test_url_is_quoted():
    expected = "https://raw.githubusercontent.com/owner/repo/0123456789abcdef0123456789abcdef01234567/data/a%20file.csv"
    assert entry().url == expected


def test_git_blob_id_is_what_git_says(tmp_path):
    (tmp_path / "greeting").write_bytes(b"hello\n")
    assert git_blob_sha1(tmp_path / "greeting") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize("blob_only", [False, True])
def test_mirror_is_used_in_place(mirror, blob_only, monkeypatch):
    expected = {"a file.csv": mirror / "set" / "a file.csv"}
    assert fetch([entry(blob_only=blob_only)], mirror=mirror) == expected
    monkeypatch.setenv(download.MIRROR_VARIABLE, str(mirror))
    assert fetch([entry(blob_only=blob_only)]) == expected


@pytest.mark.parametrize("blob_only", [False, True])
def test_mirror_with_a_wrong_file(mirror, blob_only):
    (mirror / "set" / "a file.csv").write_bytes(CONTENT[:-1])
    file = entry(blob_only=blob_only)
    with pytest.raises(DataError) as error:
        fetch([file], mirror=mirror)
    found = f"found {file.checksum.split(':')[0]}:"
    assert all(part in str(error.value) for part in ("a file.csv", f"expected {file.checksum}", found))
    assert "\n" not in str(error.value)


def test_mirror_without_the_file_or_no_folder(mirror, tmp_path):
    with pytest.raises(DataError, match=r"other\.csv is missing in the mirror"):
        fetch([entry(name="other.csv")], mirror=mirror)
    with pytest.raises(DataError, match="not a folder"):
        fetch([entry()], mirror=tmp_path / "nowhere")


def test_optional_files_are_used_where_they_are(mirror):
    extra = entry(b"more", "extra.csv")
    assert set(fetch([entry()], optional=[extra], mirror=mirror)) == {"a file.csv"}
    (mirror / "set" / "extra.csv").write_bytes(b"more")
    assert set(fetch([entry()], optional=[extra], mirror=mirror)) == {"a file.csv", "extra.csv"}
    (mirror / "set" / "extra.csv").write_bytes(b"MORE")
    with pytest.raises(DataError, match="wrong checksum"):
        fetch([entry()], optional=[extra], mirror=mirror)


@pytest.mark.parametrize("blob_only", [False, True])
def test_download_once_and_again_when_damaged(server, blob_only):
    file = entry(blob_only=blob_only)
    server.put(file)
    for _ in range(2):
        path = fetch([file], progress=False)["a file.csv"]
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    path.write_bytes(b"damaged")
    assert fetch([file], progress=False)["a file.csv"].read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_verified_files_survive_a_failure_of_a_later_one(server, tmp_path):
    first, second = entry(), entry(b"second", "second.csv")
    server.put(first)
    with pytest.raises(DataError):
        fetch([first, second], progress=False)
    server.put(second, b"second")
    assert set(fetch([first, second], progress=False)) == {"a file.csv", "second.csv"}
    assert [request for request in server.requests if "a%20file" in request] == server.requests[:1]


def test_server_errors_are_tried_again(server):
    server.put(entry())
    server.failures = 2
    assert fetch([entry()], progress=False)["a file.csv"].read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("content", "cut", "host", "said", "requests"),
    [
        (b"<html>not the file</html>", False, "", "wrong checksum.*--mirror", 3),
        (None, False, "", "answers 404.*--mirror", 1),
        (CONTENT, True, "", "cannot download", 3),
        (CONTENT, False, "http://127.0.0.1:1", "no connection .*--mirror", 0),
    ],
)
@pytest.mark.parametrize("blob_only", [False, True])
def test_a_failed_download_is_one_line_and_leaves_nothing(
    server, monkeypatch, tmp_path, content, cut, host, said, requests, blob_only
):
    server.put(entry(), content)
    server.cut = cut
    monkeypatch.setattr(download, "RAW_HOST", host or download.RAW_HOST)
    with pytest.raises(DataError, match=said) as error:
        fetch([entry(blob_only=blob_only)], progress=False)
    assert "\n" not in str(error.value)
    assert len(server.requests) == requests
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_progress_goes_to_stderr_and_can_be_silenced(server, capsys):
    server.put(entry())
    fetch([entry()], progress=True)
    shown = capsys.readouterr()
    assert "a file.csv" in shown.err
    assert shown.out == ""
    other = replace(entry(), local_path="set/other.csv")
    fetch([other], progress=False)
    assert capsys.readouterr().err == ""
