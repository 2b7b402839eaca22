"""A file in pieces: its sha256 is that of its bytes, in whichever order they arrive and whoever writes them."""

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpretrain.stores.pieces import MOST_PIECES, PieceFile, PieceReader, pieces_of, read_piece

PIECE = 7
contents = st.binary(min_size=1, max_size=12 * PIECE)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@given(st.integers(0, 10**15), st.integers(1, 10**9))
def test_pieces_follow_each_other_and_are_not_too_many(size: int, piece_bytes: int) -> None:
    pieces = pieces_of(min(size, 5 * MOST_PIECES * piece_bytes), piece_bytes)
    assert 1 <= len(pieces) <= MOST_PIECES and pieces[0].start == 0
    assert all(before.end == after.start for before, after in itertools.pairwise(pieces))
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))


@given(contents)
def test_a_reader_hands_out_the_file_once_to_all_who_ask(content: bytes) -> None:
    with TemporaryDirectory() as folder, ThreadPoolExecutor(4) as pool:
        path = Path(folder) / "file"
        path.write_bytes(content)
        pieces = pieces_of(len(content), PIECE)
        reader = PieceReader(path, pieces)
        read = sorted(pool.map(lambda _: reader.next(), pieces), key=lambda each: each[0].number)
        assert b"".join(body for _, body in read) == content
        assert reader.sha256() == sha256(content)


@given(contents, st.randoms(use_true_random=False), st.booleans())
def test_a_file_is_right_when_all_its_bytes_are(content: bytes, rng, stopped: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        target = PieceFile(path, len(content), "1", PIECE)
        order = list(target.pieces)
        rng.shuffle(order)
        wrong = order[rng.randrange(len(order))]
        for piece in order:
            body = content[piece.start : piece.end]
            target.write(piece, bytes(len(body) * [body[0] ^ 1]) if piece is wrong else body)
        assert not target.is_right(sha256(content))
        if stopped:
            target = PieceFile(path, len(content), "1", PIECE)
            assert target.missing() == []
        target.write(wrong, content[wrong.start : wrong.end])
        assert target.is_right(sha256(content)) and target.is_right(None)
        target.finish()
        assert path.read_bytes() == content and list(Path(folder).iterdir()) == [path]


def test_pieces_may_arrive_from_many_threads(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    target = PieceFile(tmp_path / "file", len(content), "1", 4096)
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda piece: target.write(piece, content[piece.start : piece.end]), reversed(target.pieces)):
            pass
    assert target.is_right(sha256(content)) and not target.is_right(sha256(content + b"x"))


@pytest.mark.parametrize("damage", ["piece", "journal", "version"])
def test_what_was_damaged_while_nobody_wrote_is_fetched_anew(tmp_path: Path, damage: str) -> None:
    content = bytes(range(200))
    target = PieceFile(tmp_path / "file", len(content), "1", 50)
    for piece in target.pieces[:3]:
        target.write(piece, content[piece.start : piece.end])
    if damage == "piece":
        target.partial.write_bytes(bytes(60) + target.partial.read_bytes()[60:])
    elif damage == "journal":
        target.journal.write_text(target.journal.read_text().replace("2 ", "2 1"))
    again = PieceFile(tmp_path / "file", len(content), "2" if damage == "version" else "1", 50)
    assert [piece.number for piece in again.missing()] == {
        "piece": [1, 2, 4],
        "journal": [2, 4],
        "version": [1, 2, 3, 4],
    }[damage]
    for piece in again.missing():
        again.write(piece, content[piece.start : piece.end])
    assert again.is_right(sha256(content)) and read_piece(again.partial, again.pieces[1]) == content[50:100]
