"""Bodies: encodings, spooling, forms."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.embedded.clickhouse_body import Encoder, Spool, decode, multipart
from ratchet.infra.embedded.clickhouse_engine import EngineError

ENCODINGS = ["lz4", "zstd", "gzip", "deflate", ""]


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(pieces=st.lists(st.binary()), cut=st.integers(1, 50))
def test_what_the_encoder_makes_the_decoder_undoes(encoding: str, pieces: list[bytes], cut: int) -> None:
    """Whatever the pieces and wherever the network cuts them."""
    encoder = Encoder(encoding)
    packed = b"".join([encoder(piece) for piece in pieces] + [encoder.finish()])
    chunks = [packed[at : at + cut] for at in range(0, len(packed), cut)]
    assert b"".join(decode(encoder.name, chunks)) == b"".join(pieces)


@pytest.mark.parametrize(("encoding", "pack"), [("lz4", lz4.frame.compress), ("gzip", gzip.compress)])
def test_several_frames_in_a_row_are_one_body(encoding: str, pack: object) -> None:
    """clickhouse-connect compresses each block of an insert by itself."""
    assert callable(pack)
    assert b"".join(decode(encoding, [pack(b"one") + pack(b"two")])) == b"onetwo"


@pytest.mark.parametrize("body", [b"not compressed", zlib.compress(b"x")[:-3]])
def test_a_broken_body_is_named_as_such(body: bytes) -> None:
    """Neither garbage nor half a body is taken for data."""
    with pytest.raises(EngineError, match="CANNOT_DECOMPRESS"):
        list(decode("deflate", [body]))


def test_an_unknown_encoding_is_refused() -> None:
    """With the code that ClickHouse has for what it does not implement."""
    with pytest.raises(EngineError, match="snappy"):
        list(decode("snappy", [b""]))


@given(pieces=st.lists(st.binary(max_size=20)))
def test_a_spool_gives_back_what_was_written(pieces: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    """In memory, in its file, or both."""
    spool = Spool(tmp_path_factory.mktemp("spool") / "body", memory=16)
    for piece in pieces:
        spool.write(piece)
    assert b"".join(spool.chunks()) == b"".join(pieces)
    assert spool.save().read_bytes() == b"".join(pieces)
    spool.remove()
    assert not spool.path.exists()


def test_a_small_body_never_touches_the_disk(tmp_path: Path) -> None:
    """Most statements are small."""
    spool = Spool(tmp_path / "body")
    spool.write(b"SELECT 1")
    assert not spool.path.exists()


def test_form_fields_are_read() -> None:
    """Long bound parameters travel as a form."""
    body = b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT 1\r\n--x--\r\n'
    assert multipart(body, 'multipart/form-data; boundary="x"') == {"query": "SELECT 1"}


@pytest.mark.parametrize("disposition", [b'form-data; name="t"; filename="t.csv"', b"form-data"])
def test_external_tables_are_refused(disposition: bytes) -> None:
    """They are not offered, and say so instead of being ignored."""
    with pytest.raises(EngineError, match="External tables"):
        multipart(
            b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x"
        )
