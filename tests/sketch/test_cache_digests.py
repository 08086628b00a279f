"""Digests of the inputs from which a block was computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_skmm.sketch._cache import digest


def test_digest_ignores_memory_layout_and_byte_order():
    values = np.random.RandomState(0).normal(size=(4, 6))
    same = [
        values,
        np.asfortranarray(values),
        np.repeat(values, 2, axis=1)[:, ::2],
        values.astype(">f8"),
        values.astype("<f8"),
    ]
    assert len({digest(array) for array in same}) == 1


def test_digest_distinguishes_similar_inputs():
    zero = np.zeros((2, 3), dtype=np.float32)
    different = [
        (),
        (None,),
        ("None",),
        (b"None",),
        (True,),
        (1,),
        (1.0,),
        ("1",),
        (0.0,),
        (-0.0,),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        # Without a prefix of lengths and types, these would be the same bytes.
        ("a", "b"),
        ("astr\nb",),
        ("str 1\nastr 1\nb",),
        (zero,),
        (zero.T,),
        (zero.ravel(),),
        (zero.astype(np.int32),),
        (zero.astype(np.float64)[:, :1],),
        (-zero,),
        (zero[:1], zero[:1]),
        (zero.tobytes(),),
        (zero[:0],),
        (zero[:, :0],),
        (np.zeros(()),),
        (np.zeros(1),),
        (np.array(["a", "b"]),),
        (np.array([b"a", b"b"]),),
        (np.array(["NaT"], dtype="M8[s]"),),
        (np.array(["NaT"], dtype="M8[ms]"),),
        ("\ud800",),
    ]
    assert len({digest(*parts) for parts in different}) == len(different)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_digest_depends_on_every_bit(data):
    array = np.random.RandomState(0).bytes(64)
    bit = data.draw(st.integers(0, 8 * 64 - 1))
    flipped = bytearray(array)
    flipped[bit // 8] ^= 1 << bit % 8
    before, after = (np.frombuffer(b, dtype=np.int64).reshape(2, 4) for b in (array, flipped))
    assert digest(before) != digest(after)
    assert digest(array) != digest(bytes(flipped))


@pytest.mark.parametrize(
    "part",
    [
        [1, 2],
        {"a": 1},
        np.array([None]),
        np.zeros(2, dtype=np.longdouble),
        np.zeros(2, dtype=[("a", int)]),
        np.array(["a"], dtype=np.dtypes.StringDType()),
        1j,
    ],
    ids=str,
)
def test_digest_rejects_values_without_canonical_bytes(part):
    with pytest.raises(TypeError, match=r"canonical|Cannot digest"):
        digest(part)
