"""Google's store goes through the same pyarrow file systems as S3: its addresses are read as they are."""

import pytest
from pyarrow.fs import GcsFileSystem

from tuneopt.ledger import Ledger, open_ledger
from tuneopt.ledger.files import RemoteFiles
from tuneopt.spec import InputError


@pytest.mark.parametrize("prefix", ["deep/ledger", "ledger/"])
def test_a_gs_address_names_bucket_prefix_and_endpoint(prefix: str) -> None:
    ledger = Ledger(f"gs://anonymous@bucket/{prefix}?scheme=http&endpoint_override=127.0.0.1:1&retry_limit_seconds=1")
    assert isinstance(ledger.files, RemoteFiles) and isinstance(ledger.files.filesystem, GcsFileSystem)
    assert ledger.files.path("trials/a.json") == f"bucket/{prefix.rstrip('/')}/trials/a.json"
    assert not ledger.is_local


def test_a_gs_store_that_does_not_answer_is_one_line() -> None:
    with pytest.raises(InputError) as caught:
        open_ledger("gs://anonymous@bucket/x?scheme=http&endpoint_override=127.0.0.1:1&retry_limit_seconds=1")
    assert "cannot be read" in str(caught.value) and "\n" not in str(caught.value)
