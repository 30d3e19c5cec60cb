"""`bench inspect` reads machine code rightly and notices what breaks a limit."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

from bench import inspect, inspect_all, record

GOOD = inspect.Report(inspect.Variant("gradient"), 90, 2, 200, 0, 0, 0, 0, 16, 17, 16, 16, 27.0, 1.5)


def test_a_good_kernel_breaks_no_limit():
    assert inspect.violations(GOOD) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stack": 8}, "8 bytes of stack"),
        ({"spilled": 2}, "2 local-memory instructions"),
        ({"vector_loads": 12}, "4 narrow loads"),
        ({"vector_stores": 0}, "16 narrow stores"),
        ({"conversions": 2}, "2 conversions of a block's layout"),
        ({"shared": 4096}, "4096 bytes of shared memory"),
        ({"instructions": 100.0}, "100.0 instructions per pixel"),
    ],
)
def test_what_breaks_a_limit_is_named(change, words):
    assert words in "; ".join(inspect.violations(dataclasses.replace(GOOD, **change)))


def test_the_disassembly_is_counted():
    listing = (
        "        /*0000*/                   LDC R1, c[0x0][0x28] ;\n"
        "        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;\n"
        "        /*0020*/                   LDG.E R8, desc[UR4][R2.64+0x10] ;\n"
        "        /*0030*/             @!UP1 UIADD3 UR4, UR5, 0x1, URZ ;\n"
    )
    found = inspect._INSTRUCTION.findall(listing)
    assert found == [("LDC", ""), ("LDG", ".E.128"), ("LDG", ".E"), ("UIADD3", "")]


def test_variants_have_names_of_their_own():
    few = [(variant.name, architecture) for variant, architecture in inspect.few()]
    every = [variant.name for variant in inspect_all.every()]
    assert len(set(few)) == len(few) and len(set(every)) == len(every)


def test_every_architecture_and_kernel_is_in_the_short_run():
    seen = {(variant.kernel, architecture) for variant, architecture in inspect.few()}
    assert seen >= {(k, a) for k in ("value", "gradient") for a in inspect.ARCHITECTURES}


def test_all_are_recorded_and_a_broken_limit_is_named(tmp_path, monkeypatch, capsys):
    pytest.importorskip("triton", reason="Triton is an optional dependency, for Linux")
    few = [inspect.Variant("finish"), inspect.Variant("finish", offset=True)]
    monkeypatch.setattr(inspect_all, "every", lambda: few)
    parser = argparse.ArgumentParser()
    inspect.arguments(parser)
    options = ["--all", "--arch", "80", "--jobs", "1", "--out", str(tmp_path)]
    assert inspect.run(parser.parse_args(options)) == 0
    assert "all limits kept" in capsys.readouterr().out
    rows, _ = record.read(tmp_path / "inspect_triton.csv", inspect_all.Row)
    assert [row.variant for row in rows] == [variant.name for variant in few]
    spilling = inspect_all.Row.of(dataclasses.replace(GOOD, stack=8))
    text = inspect_all.summary([*rows, spilling], "3.7.1")
    assert f"- sm_90 {spilling.variant}: spills: 8 bytes of stack" in text
    assert "| sm_90 | 1 | 1 | 200 |" in text
