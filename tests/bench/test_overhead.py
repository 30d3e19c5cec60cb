from bench import record
from bench.__main__ import main
from bench.record import Timing


def test_a_run_writes_its_records(tmp_path, capsys):
    assert main(["overhead", "--engine", "eager", "--seconds", "0.05", "--out", str(tmp_path)]) == 0
    rows, _ = record.read(tmp_path / "overhead_cpu.csv", Timing)
    assert {(r.kernel, r.provider, r.mode) for r in rows} >= {
        ("q", "engine", "forward"),
        ("q", "op", "forward"),
        ("q", "q_metric", "forward"),
        ("q", "QLoss", "both"),
        ("mae_q", "MAEQLoss", "both"),
        ("l1_loss", "torch", "both"),
    }
    assert all(r.ms_p50 > 0 for r in rows)
    assert "| QLoss: QLoss | both |" in (tmp_path / "overhead_cpu.md").read_text()
