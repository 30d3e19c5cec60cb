"""Small kernels in PTX: what they compute, and that what they must not do is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from bench.ptx import machine, syntax
from bench.ptx.memory import Fault, Region

KERNEL = """
.version 8.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry kernel(
    .param .u64 kernel_param_0,
    .param .u32 kernel_param_1
)
{
    .reg .pred %p<8>;
    .reg .b16 %rs<8>;
    .reg .b32 %r<16>;
    .reg .f32 %f<8>;
    .reg .b64 %rd<8>;
    .shared .align 4 .b8 own[256];

    ld.param.u64 %rd1, [kernel_param_0];
    ld.param.u32 %r1, [kernel_param_1];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mad.lo.s32 %r5, %r3, %r4, %r2;
    mul.wide.u32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    BODY
    ret;
}
"""


def run(
    body: str,
    out: np.ndarray,
    number: int = 0,
    blocks: int = 1,
    threads: int = 64,
    shared: int = 0,
    settled: bool = False,
):
    """%rd3 is the address of the thread's own element of ``out``, %rd1 that of the first; %r2 the thread, %r1
    the number."""
    (kernel,) = syntax.Kernels(KERNEL.replace("BODY", body)).values()
    region = Region(out.ctypes.data, out.nbytes, "out", settled=settled)
    parameters = np.array([out.ctypes.data], np.uint64).tobytes() + np.array([number], np.int32).tobytes()
    record = machine.Record(counts=machine.Counts())
    machine.launch(
        kernel, (blocks, 1, 1), (threads, 1, 1), parameters, [region], dynamic_shared=shared, record=record
    )
    return record.counts


def test_threads_of_all_blocks_write_their_own_element():
    room = np.zeros(41 * 64, np.int32)
    out = room[-room.ctypes.data % 128 // 4 :][: 40 * 64]
    counts = run("st.global.u32 [%rd3], %r5;", out, blocks=40)
    assert (out == np.arange(out.size)).all()
    # A warp's 128 bytes in a row are four sectors.
    assert (counts.requests["store"], counts.sectors["store"], counts.bytes["store"]) == (80, 320, out.nbytes)
    assert counts.warp_instructions == 80 * 10


def test_threads_part_and_meet_again():
    out = np.zeros(64, np.int32)
    body = """
    setp.lt.s32 %p1, %r2, 7;
    mov.u32 %r6, 0;
    @%p1 bra $L_less;
    add.s32 %r6, %r6, 100;
    bra.uni $L_end;
$L_less:
    add.s32 %r6, %r6, 1;
    setp.lt.s32 %p2, %r6, %r2;
    @%p2 bra $L_less;
$L_end:
    shfl.sync.bfly.b32 %r7, %r6, 1, 31, -1;
    st.global.u32 [%rd3], %r7;
"""
    run(body, out)
    own = np.where(np.arange(64) < 7, np.maximum(np.arange(64), 1), 100)
    assert (out == own[np.arange(64) ^ 1]).all()


def test_a_vote_is_the_warps():
    out = np.zeros(96, np.int32)
    body = """
    setp.eq.s32 %p1, %r2, 40;
    vote.sync.any.pred %p2, %p1, -1;
    selp.b32 %r6, 1, 0, %p2;
    st.global.u32 [%rd3], %r6;
"""
    run(body, out)
    assert (out == np.repeat([0, 1, 0], 32)).all()


def test_a_barrier_makes_the_others_stores_visible():
    out = np.zeros(128, np.int32)
    body = """
    shl.b32 %r6, %r2, 2;
    mov.u32 %r7, own;
    add.s32 %r8, %r7, %r6;
    st.shared.u32 [%r8], %r5;
    BARRIER
    xor.b32 %r9, %r6, EXCHANGE;
    add.s32 %r9, %r7, %r9;
    ld.shared.u32 %r10, [%r9];
    st.global.u32 [%rd3], %r10;
"""
    for barrier, exchange in (("bar.sync 0;", 128), ("bar.warp.sync -1;", 64)):
        counts = run(body.replace("BARRIER", barrier).replace("EXCHANGE", str(exchange)), out, blocks=2)
        assert (out == (np.arange(128) ^ (exchange // 4))).all()
        # No two lanes need the same bank.
        assert counts.bank_cycles == counts.shared_requests == 8
    for barrier, exchange in (("", 64), ("bar.warp.sync -1;", 128)):
        with pytest.raises(Fault, match=r"race in shared memory: read by thread \d+ .*after thread"):
            run(body.replace("BARRIER", barrier).replace("EXCHANGE", str(exchange)), out, blocks=2)
    again = body.replace("BARRIER", "bar.sync 0;").replace("EXCHANGE", "128") + "st.shared.u32 [%r8], %r10;"
    with pytest.raises(Fault, match="race in shared memory: write by thread"):
        run(again, out, blocks=2)


def test_banks_are_counted():
    out = np.zeros(64, np.int32)
    body = "mov.u32 %r7, dynamic; mad.lo.s32 %r6, %r2, STRIDE, %r7; st.shared.KIND [%r6], VALUE;"
    four = "{%r2, %r2, %r2, %r2}"
    for stride, kind, value, cycles in (
        (4, "u32", "%r2", 1),
        (128, "u32", "%r2", 32),
        (16, "v4.u32", four, 4),
    ):
        text = body.replace("STRIDE", str(stride)).replace("KIND", kind).replace("VALUE", value)
        assert run(text, out, threads=32, shared=4096).bank_cycles == cycles


def test_before_it_has_waited_a_kernel_touches_only_what_is_settled():
    out = np.zeros(64, np.int32)
    wait, store = "griddepcontrol.wait;", "st.global.u32 [%rd3], %r5;"
    half = "setp.lt.s32 %p1, %r2, 32; @%p1 bra $L_in; griddepcontrol.wait; $L_in:"
    run(f"griddepcontrol.launch_dependents; {wait} {store}", out)
    assert (out == np.arange(64)).all()
    for body in (f"{store} {wait}", f"{half} {store}", f"ld.global.u32 %r6, [%rd3]; {wait}"):
        with pytest.raises(Fault, match="out is touched without waiting"):
            run(body, out)
    run(f"{store} {wait}", out, settled=True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("st.global.u32 [%rd3+4], %r2;", "4 bytes behind out"),
        ("st.global.u32 [%rd3+-4], %r2;", "before everything"),
        ("st.global.u16 [%rd3+1], %rs1;", "divisible by 2"),
        ("st.global.v4.u32 [%rd3], {%r2, %r2, %r2, %r2};", "divisible by 16"),
        ("st.global.u32 [%rd1], %r2;", "two threads store to the same address"),
        ("st.global.u32 [%rd3], %r9;", "%r9.*before anything was written"),
        ("mov.u32 %r6, own; st.shared.u32 [%r6], %r2;", "two threads store to the same byte"),
        ("mov.u32 %r6, own; st.shared.u32 [%r6+256], %r2;", "shared memory out of bounds"),
        ("mov.u32 %r6, own; ld.shared.u32 %r7, [%r6];", "nothing has written"),
        ("setp.eq.s32 %p1, %r2, 3; @%p1 ret; shfl.sync.bfly.b32 %r7, %r2, 1, 31, -1;", "do not come"),
        ("setp.lt.s32 %p1, %r2, 32; @%p1 bra $L_a; bar.sync 0; $L_a: bar.sync 0;", "do not come"),
        ("shfl.sync.bfly.b32 %r7, %r2, 1, 31, 3;", "part of a warp"),
        ("setp.eq.s32 %p1, %r2, 3; vote.sync.any.pred %p2, %p1, 3;", "part of a warp"),
    ],
)
def test_what_a_kernel_must_not_do_is_an_error_that_names_it(body, reason):
    out = np.zeros(64, np.int32)
    body = f"cvt.u16.u32 %rs1, %r2; {body}"
    with pytest.raises(Fault, match=f"(?s){reason}.*in kernel, instruction \\d+: "):
        run(body, out)


def test_what_is_not_known_is_refused():
    with pytest.raises(NotImplementedError, match="atom"):
        run("atom.global.add.u32 %r6, [%rd3], %r2;", np.zeros(64, np.int32))
