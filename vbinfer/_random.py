"""Counter-based standard normal variates.

A pure function of (key, step, index), so nothing has to be stored.

Threefry-2x32 with 13 rounds (Salmon, Moraes, Dror & Shaw 2011, SC '11, doi:10.1145/2063384.2063405; the fewest rounds
their table lists as passing BigCrush) turns the counter `(step, index)` under a 64-bit key into two 32-bit words,
and the Box-Muller transform turns the two words into two normals. The logarithm is a polynomial, sine and cosine are
polynomials on an eighth of a turn: they vectorise where the library functions do not.

Always float32, also when JAX runs in float64: a draw has the same noise in both precisions. Radii reach
sqrt(2 ln 2^32) = 6.66; the polynomials are within 1e-7 of the functions.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_ROUNDS = 13


def threefry_2x32_13(k0: Array, k1: Array, c0: Array, c1: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 13 rounds.

    Two uint32 words from a key of two words and a counter of two words.
    """
    # x0 ----(+)--------------- x0'      one round: add, rotate, exclusive or. Each is invertible, so distinct
    #         ^        |                 counters give distinct words; every fourth round brings in words of the key
    # x1 -----+-(<<<)-(^)------ x1'
    keys = (k0, k1, k0 ^ k1 ^ jnp.uint32(_PARITY))
    x0, x1 = c0 + keys[0], c1 + keys[1]
    for i in range(_ROUNDS):
        rotation = _ROTATIONS[i % 8]
        x0 = x0 + x1
        x1 = (x1 << rotation) | (x1 >> (32 - rotation))
        x1 = x1 ^ x0
        if i % 4 == 3:
            injection = i // 4 + 1
            x0 = x0 + keys[injection % 3]
            x1 = x1 + keys[(injection + 1) % 3] + jnp.uint32(injection)
    return x0, x1


def box_muller(b0: Array, b1: Array) -> tuple[Array, Array]:
    """Two independent standard normals, float32, from two independent uint32 words.

    radius = sqrt(-2 ln u), u = (floor(b0 / 2) + 1/2) / 2^31; angle = (quarter + a) pi / 2 with two bits for the quarter
    and thirty for a in [-1/2, 1/2).
    """
    radius = jnp.sqrt(-2.0 * _log_uniform(b0))
    quarter = b1 >> 30
    # the lower thirty bits as a signed number: an eighth of a turn either way, where the polynomials hold
    a = ((b1 << 2).astype(jnp.int32)).astype(jnp.float32) * jnp.float32(2.0**-33 * jnp.pi)
    sine, cosine = _sin_cos(a)
    swap = (quarter & 1) == 1
    first = jnp.where(swap, sine, cosine)
    second = jnp.where(swap, cosine, sine)
    # quarters 0, 1, 2, 3 turn (cos, sin) to (c, s), (-s, c), (-c, -s), (s, -c)
    first = jnp.where((quarter == 1) | (quarter == 2), -first, first)
    second = jnp.where(quarter >= 2, -second, second)
    return radius * first, radius * second


_SQRT_HALF = 0x3F3504F3
"""The bits of sqrt(1/2) in float32."""
# ln(1 + f) = f + f^2 P(f) on [sqrt(1/2) - 1, sqrt(2) - 1]: a minimax fit of P, error 3e-8 relative to f
_LOG = (-0.49999983, 0.33333934, -0.25002584, 0.19963476, -0.16551794, 0.14883700, -0.14426843, 0.08979435)


def _log_uniform(b: Array) -> Array:
    """Logarithm of a uniform variate from its bits.

    ln((floor(b / 2) + 1/2) / 2^31), never of 0, so without the library's branches.
    """
    # + 1/2: never the logarithm of 0. The exponent is read from the bits of v, the rest goes to the polynomial
    v = (b >> 1).astype(jnp.int32).astype(jnp.float32) + 0.5
    bits = jax.lax.bitcast_convert_type(v, jnp.int32)
    exponent = (bits - _SQRT_HALF) >> 23  # v = (1 + f) 2^exponent with 1 + f in [sqrt(1/2), sqrt(2))
    f = jax.lax.bitcast_convert_type(bits - (exponent << 23), jnp.float32) - 1.0
    c, f2 = _LOG, f * f
    low = (c[0] + c[1] * f) + (c[2] + c[3] * f) * f2
    high = (c[4] + c[5] * f) + (c[6] + c[7] * f) * f2  # shorter chains of operations than Horner's rule
    return (exponent - 31).astype(jnp.float32) * jnp.float32(0.6931471805599453) + (f + f2 * (low + high * (f2 * f2)))


def _sin_cos(a: Array) -> tuple[Array, Array]:
    """Sine and cosine on [-pi/4, pi/4].

    Taylor polynomials, truncated below 4e-9 relative to float32's 6e-8.
    """
    s = a * a
    sine = a * (1.0 + s * (-1.0 / 6 + s * (1.0 / 120 + s * (-1.0 / 5040 + s * (1.0 / 362880)))))
    cosine = 1.0 + s * (-0.5 + s * (1.0 / 24 + s * (-1.0 / 720 + s * (1.0 / 40320 + s * (-1.0 / 3628800)))))
    return sine, cosine


def normals(k0: Array, k1: Array, c0: Array, c1: Array) -> tuple[Array, Array]:
    """Two standard normals for every (key, counter).

    Which are broadcast against each other.
    """
    return box_muller(*threefry_2x32_13(k0, k1, c0, c1))


def key_words(key: Array) -> tuple[Array, Array]:
    """First two 32-bit words of typed keys.

    Of any implementation, each of the shape of `key`.
    """
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError("noise needs a typed key; write jax.random.key(0) instead of jax.random.PRNGKey(0)")
    data = jax.random.key_data(key)
    return data[..., 0], data[..., 1]
