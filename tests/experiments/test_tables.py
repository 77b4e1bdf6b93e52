"""Tables of results: one golden form each, escaping, marks, and published numbers that stand apart."""

from __future__ import annotations

import math
from html.parser import HTMLParser

import pandas as pd
import pytest
from written_runs import result_frame
from written_runs import result_rows as rows

from mmsa_lib.errors import DataError, UnknownNameError
from mmsa_lib.experiments.rendering import Block, Line, Mark, Table, escape_latex
from mmsa_lib.experiments.tables import published_setting, published_tables, read_published, results_table


@pytest.fixture
def frame():
    return result_frame(
        rows("self_mm", (0.8, 0.9, 1.0)), rows("self_mm", (0.70, 0.72, 0.74), metric="acc2"),
        rows("text_only", (0.9, 1.0, 1.1)), rows("text_only", (0.6, 0.6, 0.6), metric="acc2"),
        rows("hrlf", (1.2, 1.2, 1.5)), rows("hrlf", (0.5, 0.55, 0.6), metric="acc2"),
        rows("constant_mean", (0.1,), constant=True),
        rows("constant_mean", (math.nan,), metric="acc2", constant=True),
    )  # fmt: skip


FAILED = pd.DataFrame({"method": ["hrlf", "hrlf"], "label": "", "changes": "{}", "data_options": "{}", "dataset": "toy",
                       "fold": "standard"})  # fmt: skip

TEXT = """\
toy, fold standard, test samples: mean ± sd [95 % interval]
method         n            MAE ↓                          Acc-2 % ↑
---------------------------------------------------------------------------------------
hrlf           3, 2 failed  1.300 ± 0.173 [0.870, 1.730]   55.00 ± 5.00 [42.58, 67.42]
self_mm        3            *0.900 ± 0.100 [0.652, 1.148]  *72.00 ± 2.00 [67.03, 76.97]
text_only      3            _1.000 ± 0.100 [0.752, 1.248]  _60.00 ± 0.00 [60.00, 60.00]
constant_mean               0.100                          –
* best mean, _ second best"""

HTML = (
    "<table><caption>toy, fold standard, test samples: mean ± sd [95 % interval]</caption>"
    "<thead><tr><th>method</th><th>n</th><th>MAE ↓</th><th>Acc-2 % ↑</th></tr></thead><tbody>"
    "<tr><td>hrlf</td><td>3, 2 failed</td><td>1.300 ± 0.173 [0.870, 1.730]</td>"
    "<td>55.00 ± 5.00 [42.58, 67.42]</td></tr>"
    "<tr><td>self_mm</td><td>3</td><td><b>0.900 ± 0.100 [0.652, 1.148]</b></td>"
    "<td><b>72.00 ± 2.00 [67.03, 76.97]</b></td></tr>"
    "<tr><td>text_only</td><td>3</td><td><u>1.000 ± 0.100 [0.752, 1.248]</u></td>"
    "<td><u>60.00 ± 0.00 [60.00, 60.00]</u></td></tr>"
    '<tr style="color:#767676"><td>constant_mean</td><td></td><td>0.100</td><td>–</td></tr>'
    "</tbody></table>"
)

LATEX = r"""% \usepackage{booktabs, xcolor}
\begin{table}
\centering
\caption{toy, fold standard, test samples: mean $\pm$ sd [95 \% interval]}
\begin{tabular}{llll}
\toprule
method & n & MAE $\downarrow$ & Acc-2 \% $\uparrow$ \\
\midrule
hrlf & 3, 2 failed & 1.300 $\pm$ 0.173 [0.870, 1.730] & 55.00 $\pm$ 5.00 [42.58, 67.42] \\
self\_mm & 3 & \textbf{0.900 $\pm$ 0.100 [0.652, 1.148]} & \textbf{72.00 $\pm$ 2.00 [67.03, 76.97]} \\
text\_only & 3 & \underline{1.000 $\pm$ 0.100 [0.752, 1.248]} & \underline{60.00 $\pm$ 0.00 [60.00, 60.00]} \\
\textcolor{gray}{constant\_mean} & \textcolor{gray}{} & \textcolor{gray}{0.100} & \textcolor{gray}{--} \\
\bottomrule
\end{tabular}
\end{table}
"""

MARKDOWN = r"""toy, fold standard, test samples: mean ± sd \[95 % interval\]

| method | n | MAE ↓ | Acc-2 % ↑ |
| --- | --- | --- | --- |
| hrlf | 3, 2 failed | 1.300 ± 0.173 \[0.870, 1.730\] | 55.00 ± 5.00 \[42.58, 67.42\] |
| self\_mm | 3 | **0.900 ± 0.100 \[0.652, 1.148\]** | **72.00 ± 2.00 \[67.03, 76.97\]** |
| text\_only | 3 | <ins>1.000 ± 0.100 \[0.752, 1.248\]</ins> | <ins>60.00 ± 0.00 \[60.00, 60.00\]</ins> |
| constant\_mean |  | 0.100 | – |
"""


class TestForms:
    def test_each_is_always_the_same(self, frame):
        table = results_table(frame, failed=FAILED)
        assert repr(table) == TEXT
        assert table._repr_html_() == HTML
        assert table.to_html() == HTML + "\n"
        assert table.to_latex() == LATEX
        assert table.to_markdown() == MARKDOWN

    def test_a_page_says_its_encoding(self, frame):
        page = results_table(frame).to_html(document=True)
        assert page.startswith('<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8">')

    def test_csv_holds_the_numbers(self, frame, tmp_path):
        table = results_table(frame, failed=FAILED)
        (tmp_path / "t.csv").write_text(table.to_csv())
        back = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, na_values={"mean": [""]})
        assert back["mean"].tolist() == pytest.approx(table.frame["mean"].tolist(), nan_ok=True)
        assert back.query("method == 'hrlf'")["failed"].tolist() == [2, 2]


class TestNumbers:
    def test_one_seed_has_no_interval_and_one_method_no_best(self, frame):
        table = results_table(frame[(frame["method"] == "self_mm") & (frame["seed"] == 1)])
        assert table.lines[0].cells == ("self_mm", "1", "0.800", "70.00")
        assert not any(table.lines[0].marks)

    def test_mixing_is_refused(self, frame):
        with pytest.raises(DataError, match=r"several runs with seed 1 \(hrlf-1, later\)"):
            results_table(pd.concat([frame, result_frame(rows("hrlf", (0.5,), run_id="later"))]))
        other = pd.concat([frame, result_frame(rows("hrlf", (0.5,), dataset="other"))])
        with pytest.raises(DataError, match="several datasets"):
            results_table(other)
        assert results_table(other, dataset="other").lines[0].cells[2:] == ("0.500",)

    def test_nothing_left(self, frame):
        with pytest.raises(DataError, match="no run has valid results"):
            results_table(frame, split="valid")


class TestMarks:
    def marked(self, table, mark):
        return [line.cells[0] for line in table.lines if mark in line.marks]

    def test_two_methods_have_no_second_best(self, frame):
        table = results_table(frame[frame["method"] != "hrlf"])
        assert "_0" not in repr(table)
        assert self.marked(table, Mark.SECOND) == []

    def test_equal_means_share_the_mark(self, frame):
        same = pd.concat([frame, frame[frame["method"] == "self_mm"].assign(method="copy", run_id="x")])
        table = results_table(same, ["mae"])
        assert self.marked(table, Mark.BEST) == ["copy", "self_mm"]
        assert self.marked(table, Mark.SECOND) == ["text_only"]


class TestNamesOfConfigurations:
    """A label where there is one, else what the configuration changes; what all share stands in the title."""

    def labels(self, *parts):
        table = results_table(result_frame(*(rows("a", (0.5, 0.6), **part) for part in parts)))
        return [line.cells[0] for line in table.lines], table.title

    def test_labels(self):
        found, title = self.labels({}, {"changes": {"no_cmc": True}, "label": "no CMC"}, {"changes": {"k": 2, "j": 1}})
        assert found == ["a", "a (j=1, k=2)", "a (no CMC)"]
        assert title == "toy, fold standard, test samples: mean ± sd [95 % interval]"

    def test_a_label_with_the_data_that_differ(self):
        parts = [{"label": "x", "changes": {"k": 1}, "data": {"audio": n, "text": "w"}} for n in ("a", "b")]
        found, title = self.labels(*parts)
        assert found == ["a (x, audio=a)", "a (x, audio=b)"]
        assert "with k=1, text=w:" in title

    def test_a_label_of_two_configurations_tells_nothing(self):
        found, _ = self.labels({"label": "x", "changes": {"k": 1}}, {"label": "x", "changes": {"k": 2}})
        assert found == ["a (k=1)", "a (k=2)"]

    def test_runs_of_one_configuration_with_and_without_a_label_are_one_row(self):
        found = results_table(result_frame(rows("a", (0.5,), seeds=[1]), rows("a", (0.6,), seeds=[2], label="full")))
        assert found.lines[0].cells[:2] == ("a (full)", "2")


ODD = Table(
    (
        Block(
            "T & <t>", ("name", "what_is"),
            (Line(("a_b <i>&", r"50% of \x{y}~^#$ | *z*"), (Mark.NONE, Mark.BEST)),), ("note < 1",),
        ),
    ),
    pd.DataFrame(),
)  # fmt: skip


class TestEscaping:
    def test_html(self):
        page = ODD._repr_html_()
        assert "a_b &lt;i&gt;&amp;" in page
        assert "<caption>T &amp; &lt;t&gt;</caption>" in page
        seen = []
        parser = HTMLParser()
        parser.handle_data = seen.append
        parser.feed(page)
        assert seen == ["T & <t>", "name", "what_is", "a_b <i>&", r"50% of \x{y}~^#$ | *z*", "note < 1"]

    def test_latex(self):
        text = ODD.to_latex()
        assert r"a\_b $<$i$>$\& & \textbf{50\% of \textbackslash{}x\{y\}\textasciitilde{}\textasciicircum{}\#\$" in text
        assert escape_latex("MAE ↓ ± – … ≥ →") == r"MAE $\downarrow$ $\pm$ -- \dots{} $\geq$ $\to$"

    def test_markdown(self):
        text = ODD.to_markdown()
        assert r"| a\_b &lt;i&gt;&amp; | **50% of \\x{y}~^#$ \| \*z\*** |" in text


class TestPublished:
    def mosi(self, *methods):
        return result_frame(*(rows(m, (0.8, 0.9), dataset="mosi") for m in methods))

    def test_stands_in_tables_of_its_own(self):
        table = results_table(self.mosi("self_mm", "early_fusion", "hrlf"), published=True)
        ours, *theirs = table.blocks
        assert not ours.printed
        assert all(block.printed and block.header != ours.header for block in theirs)
        assert all("never compared" in block.title for block in theirs)
        assert [line.cells[0] for line in ours.lines] == ["early_fusion", "hrlf", "self_mm"]
        assert {line.cells[0] for block in theirs for line in block.lines} == {"self_mm", "hrlf"}
        page = table._repr_html_()
        assert page.count("<table>") == len(theirs) + 1
        assert "<small><i>84.64</i></small>" in page
        assert "<b>" not in page.split("</table>", 1)[1]

    def test_names_paper_table_and_features_as_the_file_has_them(self):
        published = read_published()
        (source, *_) = [
            t for t in published_tables(published, "mosi", "complete", ["self_mm"]) if "HRLF Table 1" in t.title
        ]
        assert source.blocks[0].header == ("method", "paper", "F1 %")
        assert [line.cells for line in source.lines] == [
            ("self_mm", "Yu et al., AAAI 2021 (arXiv 2102.04830)", "84.64")
        ]
        assert "Features: GloVe 300 / COVAREP 74 / Facet 35, word-aligned" in source.title
        assert "mosi, complete" in source.title

    def test_every_number_is_the_files(self):
        published = read_published()
        for table in published_tables(published, "mosi", "complete", ["mult", "misa", "self_mm"]):
            where = table.title.removeprefix("Published: ").split(", mosi, complete. Features: ")[0]
            for method, paper, *cells in (line.cells for line in table.lines):
                own = published[(published["method"] == method) & (published["paper"] == paper)]
                own = own[(own["quoted_from"] == where) & (own["setting"] == "complete") & (own["dataset"] == "mosi")]
                values = {round(float(v), 4) for v in own["value"]}
                shown = {round(float(v), 4) for cell in cells for v in cell.split(" / ") if v != "–"}
                assert shown <= values
                assert shown

    def test_features_are_never_mixed(self):
        tables = published_tables(read_published(), "mosi", "complete", ["ef_lstm", "self_mm"])
        mmsa = [t.title for t in tables if "result-stat" in t.title]
        assert len(mmsa) == 2
        assert sum("unaligned" in title for title in mmsa) == 1

    @pytest.mark.parametrize(
        ("method", "remark"),
        [
            ("contrastive_mmcl", "not accessible to us"),
            ("collaborative_mmcl", "not accessible to us; withdrawn by its authors"),
            ("modal_alignment", "not accessible to us"),
        ],
    )
    def test_nobody_quotes_what_could_not_be_verified(self, method, remark):
        invented = read_published().query("method == 'self_mm' and dataset == 'mosi'").assign(method=method)
        for published in (True, invented):
            table = results_table(self.mosi(method), published=published)
            assert (method, remark) in [line.cells for line in table.published[-1].lines]
            assert [line.cells for one in table.published for line in one.lines if line.cells[0] == method] == [
                (method, remark)
            ]
            assert "84.64" not in repr(table)

    def test_without_any_number_it_says_so(self, frame):
        table = results_table(frame[frame["method"] != "self_mm"], published=True)
        assert table.published == ()
        assert table.notes == ("no paper prints numbers of these methods on toy in this setting",)

    def test_settings_of_protocols(self):
        assert published_setting("complete", 0.0) == "complete"
        assert published_setting("subsets", "text+vision") == "subset={l,v}"
        assert published_setting("subsets", "text+audio+vision") == "complete"
        assert published_setting("frames", 0.3) is None

    def test_a_file_of_something_else(self, tmp_path):
        (tmp_path / "x.csv").write_text("a\n1\n")
        with pytest.raises(DataError, match="no published numbers: column 'method'"):
            read_published(tmp_path / "x.csv")
        with pytest.raises(DataError, match="can't be read"):
            read_published(tmp_path / "absent.csv")


class TestNames:
    @pytest.mark.parametrize(
        ("asked", "answer"),
        [
            ({"level": "0.5"}, "unknown level '0.5'"),
            ({"fold": "standrad"}, "unknown fold 'standrad'; did you mean standard"),
            ({"methods": ["selfmm"]}, "unknown method 'selfmm'; did you mean self_mm"),
            ({"intervals": "item"}, "unknown intervals 'item'; did you mean items"),
        ],
    )
    def test_unknown_ones_are_answered_by_the_nearest(self, frame, asked, answer):
        with pytest.raises(UnknownNameError, match=answer):
            results_table(frame, **asked)

    def test_methods_can_be_chosen_and_constants_stay(self, frame):
        table = results_table(frame, methods=["self_mm"], failed=FAILED)
        assert [line.cells[0] for line in table.lines] == ["self_mm", "constant_mean"]
