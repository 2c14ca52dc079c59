"""The committed report of the published study is what the code makes today."""

from pathlib import Path

from tuneopt.reporting.write import write_report

COMMITTED = Path(__file__).resolve().parents[2] / "reports" / "published.html"


def test_the_committed_report_is_what_the_code_makes(tmp_path: Path) -> None:
    write_report(None, tmp_path / "published.html", published=True)
    made = (tmp_path / "published.html").read_text(encoding="utf-8")
    # Not compared by assert alone: a difference of a megabyte of HTML would fill the terminal.
    same = made == COMMITTED.read_text(encoding="utf-8")
    assert same, "run `tuneopt report --published -o reports/published.html` and commit the file"
