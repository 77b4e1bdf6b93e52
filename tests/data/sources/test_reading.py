"""Text tables as they come: encodings, separators, quotation marks, rows that were cut."""

import random

import pytest

from mmsa_lib.data.sources.reading import read_cells
from mmsa_lib.errors import DataError

HEADER = "id,split,label,text"
ROWS = ['a,train,0.5,"good, yes"', "b,valid,-1,plain", "c,test,2,caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
COLUMNS = {
    "id": ["a", "b", "c"],
    "split": ["train", "valid", "test"],
    "label": ["0.5", "-1", "2"],
    "text": ["good, yes", "plain", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"],
}


def write(folder, lines=(HEADER, *ROWS), encoding="utf-8", end="\n", name="mine.csv"):
    path = folder / name
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_encodings_and_line_ends_that_are_read(encoding, end, tmp_path):
    found = read_cells(write(tmp_path, encoding=encoding, end=end))
    assert found.columns == COLUMNS
    assert found.lines == ([2, 3, 4] if end != "\n\n" else [3, 5, 7])
    assert found.remarks == (["mine.csv is UTF-16"] if encoding == "utf-16" else [])


@pytest.mark.parametrize("encoding", ["cp1252", "gb18030", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused_with_the_way_to_convert(encoding, tmp_path):
    lines = (HEADER, "a,train,1,x", "b,valid,1,\N{LATIN SMALL LETTER E WITH ACUTE}\N{CJK UNIFIED IDEOGRAPH-597D}")
    lines = lines if encoding != "cp1252" else (*lines[:2], "b,valid,1,\N{LATIN SMALL LETTER E WITH ACUTE}t")
    with pytest.raises(DataError, match=r"not a readable table: line [123] .*iconv"):
        read_cells(write(tmp_path, lines, encoding))


@pytest.mark.parametrize("mark", ["\t", ";", "|"])
def test_other_separators_are_told_from_the_header(mark, tmp_path):
    lines = [line.replace(",", mark) for line in (HEADER, "a,train,1,x", "b,valid,2,y")]
    found = read_cells(write(tmp_path, lines))
    assert found.columns["text"] == ["x", "y"]
    assert "separated by" in found.remarks[0]
    tabs = read_cells(write(tmp_path, lines, name="mine.tsv"))
    assert tabs.columns == found.columns
    assert bool(tabs.remarks) == (mark != "\t")


def test_a_spreadsheet_may_say_its_separator(tmp_path):
    found = read_cells(write(tmp_path, ("sep=;", "id;text", "a;x, y"), end="\r\n"))
    assert found.columns == {"id": ["a"], "text": ["x, y"]}
    assert found.lines == [3]


def test_quotation_marks(tmp_path):
    lines = (HEADER, 'a,train,1,"two\nlines, ""quoted"""', 'b,test,1,5" screen')
    found = read_cells(write(tmp_path, lines))
    assert found.columns["text"] == ['two\nlines, "quoted"', '5" screen']
    assert found.lines == [2, 4]
    text = read_cells(write(tmp_path, ["id\ttext", 'a\t"Well" he said', 'b\t"oh'], name="mine.tsv"))
    assert text.columns["text"] == ['"Well" he said', '"oh']
    assert text.remarks == ["mine.tsv: quotation marks are read as text"]


def test_a_quotation_mark_that_swallows_rows_is_refused(tmp_path):
    lines = ["id\tsplit\ttext", "a\ttrain\tx", 'b\ttrain\t"oh', "c\ttest\ty", 'd\ttest\tno"', "e\ttest\tz"]
    with pytest.raises(DataError, match="line 3 may have swallowed"):
        read_cells(write(tmp_path, lines, name="mine.tsv"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((HEADER, "a,train,1,x", "b,valid"), "line 3 has 2 cells, and the header has 4; the row is cut short"),
        ((HEADER, "a,train,1,x", "", "b,valid,1,5,y"), "line 4 has 5 cells.*decimals with a point"),
        ((HEADER, 'a,train,1,"x', "b,test,1,y"), "line 2: unexpected end of data; check the quotation marks"),
        ((HEADER, 'a,train,1,"x" y', "b,test,1,y"), "line 2: .*quotation marks"),
        (("id,split,label,id", "a,train,1,x"), "two columns are called 'id'"),
        ((HEADER,), "no row below"),
        (("", ""), "holds no line"),
        (("<!DOCTYPE html>", "<p>"), "web page"),
        (("version https://git-lfs.github.com/spec/v1", "oid"), "git lfs pull"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(lines, said, tmp_path):
    path = write(tmp_path, lines)
    with pytest.raises(DataError, match=said) as caught:
        read_cells(path)
    assert str(path) in str(caught.value)


def test_empty_columns_of_a_spreadsheet_go_and_unnamed_ones_get_a_name(tmp_path):
    found = read_cells(write(tmp_path, (",id,,", "0,a,,", "1,b,,")))
    assert found.columns == {"column 1 without a name": ["0", "1"], "id": ["a", "b"]}


def outcome(path, content):
    """What reading gives, or the message of the refusal."""
    path.write_bytes(content)
    try:
        return read_cells(path)
    except DataError as error:
        return str(error)


def test_a_table_cut_anywhere_is_refused_or_said_to_end_early(tmp_path):
    whole = write(tmp_path).read_bytes()
    ends = {whole.index(b"\n") + 1, *(i + 1 for i, byte in enumerate(whole) if byte == 10)}
    for cut in range(len(whole)):
        found = outcome(tmp_path / "mine.csv", whole[:cut])
        if isinstance(found, str):
            assert "\n" not in found
        else:
            assert cut in ends or any("does not end in a line end" in remark for remark in found.remarks)


def test_random_damage_is_one_line(tmp_path):
    generator = random.Random(0)
    whole = write(tmp_path, [HEADER, *ROWS * 3]).read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        start = generator.randrange(len(whole))
        damaged[start : start + generator.choice((0, 1, 4))] = generator.randbytes(generator.choice((0, 1, 8)))
        found = outcome(tmp_path / "mine.csv", damaged)
        assert not isinstance(found, str) or "\n" not in found
