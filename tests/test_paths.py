"""Paths that people write: what is a plain file, how much of it is read, and that outputs replace nothing else."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tuneopt.errors import InputError, of_system
from tuneopt.paths import check_output, expanded, open_plain, read_plain, replacing, temporary_folder


def others(folder: Path) -> dict[str, Path]:
    """One of each kind of thing that is no plain file."""
    folder.mkdir(exist_ok=True)
    os.mkfifo(folder / "fifo")
    (folder / "sub").mkdir()
    return {"a FIFO": folder / "fifo", "a folder": folder / "sub", "a device": Path("/dev/zero")}


def test_what_is_no_plain_file_is_refused_at_once_for_reading_and_for_writing(tmp_path: Path) -> None:
    for kind, path in others(tmp_path / "mess").items():
        before = path.stat()
        with pytest.raises(InputError, match=kind):
            read_plain(path, 10)
        with pytest.raises(InputError, match=kind):
            check_output(path, "the table")
        with pytest.raises(InputError, match=kind), replacing(path, "the table"):
            raise AssertionError("nothing may be written for it")
        after = path.stat()
        assert (stat.S_IFMT(before.st_mode), before.st_ino) == (stat.S_IFMT(after.st_mode), after.st_ino)


def test_a_file_in_the_place_of_a_folder_is_the_cause_that_is_said(tmp_path: Path) -> None:
    """What the system says is "file exists", which sounds as if that were well."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError) as caught:
        (tmp_path / "file").mkdir(exist_ok=True)
    assert "file: a file stands where a folder is to be; move it away" in str(of_system(caught.value))


def test_an_output_without_a_way_to_it_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    check_output(tmp_path / "new" / "newer" / "page.html", "the report")  # those folders can be made
    with pytest.raises(InputError, match="file is no folder"):
        check_output(tmp_path / "file" / "page.html", "the report")
    with pytest.raises(InputError, match="file is no folder"):
        check_output(tmp_path / "file" / "newer" / "page.html", "the report")


def test_a_read_is_bounded_also_where_the_size_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 11)
    with pytest.raises(InputError, match="has more than"):
        read_plain(tmp_path / "large", 10)
    assert read_plain(tmp_path / "large", 11) == b"x" * 11
    assert Path("/proc/self/status").stat().st_size == 0
    with pytest.raises(InputError, match="has more than"):  # which has some hundred bytes all the same
        read_plain(Path("/proc/self/status"), 10)


def test_a_file_that_is_exchanged_for_a_fifo_while_it_is_opened_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr("tuneopt.paths.other_kind", lambda path: "")  # the look came too early
    done = threading.Event()

    def read() -> None:
        with pytest.raises(InputError, match="not a plain file"):
            open_plain(tmp_path / "fifo")
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert done.wait(10)


def test_home_folders_are_expanded_and_unknown_ones_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/x") == tmp_path / "x"
    assert expanded("a~b") == Path("a~b")
    for bad in ("~nobody-has-this-name/x", "", " ", "a\0b"):
        with pytest.raises(InputError):
            expanded(bad)


def test_an_output_over_an_input_of_the_command_is_refused_by_whatever_name(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("precious")
    os.link(table, tmp_path / "same.csv")
    (tmp_path / "link.csv").symlink_to(table)
    for name in ("t.csv", "same.csv", "sub/../t.csv", "link.csv"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"read by this command|is a link"):
            check_output(tmp_path / name, "the report", [table])
    check_output(tmp_path / "new.html", "the report", [table])
    assert table.read_text() == "precious"


def test_nothing_is_written_through_a_link_and_a_dangling_one_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="link to"), replacing(tmp_path / "link", "the report") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink() and not (tmp_path / "nowhere").exists()


def test_an_output_appears_whole_or_not_at_all_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target, "the report") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old" and sorted(tmp_path.iterdir()) == [target]
    with replacing(target, "the report") as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and sorted(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_leaves_is_removed_by_the_next_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys, time\nfrom tuneopt.paths import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1]), 'the report') as temporary:\n"
        "    temporary.write_text('half')\n    print('written', flush=True)\n    time.sleep(60)\n"
    )
    target = tmp_path / "report.html"
    child = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"written\n"
    with replacing(target, "the report") as temporary:
        temporary.write_text("first")
    assert len(list(tmp_path.iterdir())) == 2, "the other writer is under way"
    child.kill()
    child.wait()
    with replacing(target, "the report") as temporary:
        temporary.write_text("second")
    assert list(tmp_path.iterdir()) == [target] and target.read_text() == "second"


def test_a_temporary_folder_of_a_killed_process_is_removed_by_the_next_of_its_purpose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import time\nfrom tuneopt.paths import temporary_folder\n"
        "with temporary_folder('tune') as folder:\n    print(folder, flush=True)\n    time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )  # fmt: skip
    assert child.stdout is not None
    left = Path(child.stdout.readline().strip())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = tmp_path / left.name.replace("tune-", "tune-another-host-")
    other.mkdir()
    with temporary_folder("tune") as mine:
        assert left.is_dir() and mine.is_dir() and stat.S_IMODE(mine.stat().st_mode) == 0o700
    child.kill()
    child.wait()
    with temporary_folder("train"):
        assert left.is_dir(), "another purpose"
    with temporary_folder("tune"):
        assert not left.exists()
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("number", "words"),
    [("EROFS", "read-only"), ("EACCES", "permission"), ("ENOSPC", "no space"), ("EDQUOT", "no space"),
     ("EMLINK", "another folder"), ("ESTALE", "mount"), ("EIO", "disk"), ("ELOOP", "link"), ("EISDIR", "give a file"),
     ("ENAMETOOLONG", "shorter"), ("EMFILE", "ulimit"), ("EUCLEAN", "again")],
)  # fmt: skip
def test_every_error_of_the_system_has_a_sentence_with_its_place_and_what_helps(number: str, words: str) -> None:
    import errno

    code = getattr(errno, number)
    sentence = str(of_system(OSError(code, os.strerror(code), "/some/place")))
    assert "/some/place" in sentence and words in sentence.lower() and "Errno" not in sentence, sentence


def test_a_folder_that_is_only_made_on_the_way_hides_no_input(tmp_path: Path) -> None:
    """`new/../a.csv` is not there before the folder `new` is made, and is `a.csv` itself afterwards."""
    (tmp_path / "a.csv").write_text("precious")
    (tmp_path / "link").symlink_to("elsewhere")
    roundabout = tmp_path / "new" / ".." / "a.csv"
    with (
        pytest.raises(InputError, match="it is read by this command"),
        replacing(roundabout, "the report", [tmp_path / "a.csv"], make_folder=True),
    ):
        raise AssertionError("nothing may be written for it")
    with pytest.raises(InputError, match="it is a link to elsewhere"):
        check_output(tmp_path / "new" / ".." / "link", "the report")
    with pytest.raises(InputError, match="has files of its own"):
        check_output(tmp_path / "ledger" / "trials" / "a.yaml", "the study file", [tmp_path / "ledger" / "trials"])
    assert (tmp_path / "a.csv").read_text() == "precious" and not (tmp_path / "new").exists()
