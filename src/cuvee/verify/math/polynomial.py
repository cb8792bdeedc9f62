"""Exact numbers and formulas: fractions of polynomials over the rationals and square roots.

A `Poly` maps a monomial to its coefficient; a monomial is a squarefree radicand and the
powers of its symbols (letters, and pi as one of them): `3 x^2 sqrt(5)` is
`{(5, (("x", 2),)): 3}`. Square roots of different squarefree numbers are linearly
independent over the rationals, so a polynomial is zero if and only if it has no terms. Not
here: roots of anything but rationals, powers with symbols in the exponent, the imaginary unit.
"""

import dataclasses
import math
from fractions import Fraction

Monomial = tuple[int, tuple[tuple[str, int], ...]]
Poly = dict[Monomial, Fraction]

MAX_TERMS = 60
MAX_BITS = 4000
"""Of a numerator or denominator: 1,200 digits."""
MAX_RADICAND = 10**8
"""Its square part is found by trial division, in at most 10,000 steps."""


class TooLargeError(Exception):
    """A value outgrew the limits of this module; nothing is known of it."""


@dataclasses.dataclass(frozen=True)
class Value:
    """The quotient of two polynomials; the denominator is never zero."""

    over: Poly
    under: Poly
    decimal: bool = False
    """It was written with a decimal point somewhere: a measured or rounded number."""


def constant(number: Fraction | int, *, decimal: bool = False) -> Value:
    """Return a rational number as a value."""
    return Value(_clean({(1, ()): Fraction(number)}), {(1, ()): Fraction(1)}, decimal)


def symbol(name: str) -> Value:
    """Return a letter (or `pi`) as a value."""
    return Value({(1, ((name, 1),)): Fraction(1)}, {(1, ()): Fraction(1)})


def rational(value: Value) -> Fraction | None:
    """Return the rational number that a value is, or None where it is none plainly."""
    if set(value.over) | set(value.under) <= {(1, ())}:
        return value.over.get((1, ()), Fraction(0)) / value.under[1, ()]
    return None


def add(a: Value, b: Value) -> Value:
    """Return a + b. Raises TooLargeError."""
    over = _add(_multiply(a.over, b.under), _multiply(b.over, a.under))
    return Value(over, _multiply(a.under, b.under), a.decimal or b.decimal)


def multiply(a: Value, b: Value) -> Value:
    """Return a * b. Raises TooLargeError."""
    under = _multiply(a.under, b.under)
    return Value(_multiply(a.over, b.over), under, a.decimal or b.decimal)


def invert(a: Value) -> Value:
    """Return 1 / a. Raises ZeroDivisionError."""
    if not a.over:
        raise ZeroDivisionError
    return Value(a.under, a.over, a.decimal)


def power(a: Value, exponent: int) -> Value:
    """Return a to an integer power. Raises TooLargeError, ZeroDivisionError."""
    if exponent < 0:
        return power(invert(a), -exponent)
    number = rational(a)
    if number is not None:
        if exponent * max(_bits(number), 1) > MAX_BITS:
            raise TooLargeError
        return constant(number**exponent, decimal=a.decimal)
    if exponent > MAX_TERMS:
        raise TooLargeError
    result = constant(1, decimal=a.decimal)
    for _ in range(exponent):
        result = multiply(result, a)
    return result


def root(a: Value) -> Value:
    """Return the square root of a rational number >= 0. Raises TooLargeError for all else."""
    number = rational(a)
    if number is None or number < 0:
        raise TooLargeError
    inside, factor = number.numerator * number.denominator, 1
    whole = math.isqrt(inside)
    if whole * whole == inside:
        return constant(Fraction(whole, number.denominator), decimal=a.decimal)
    if inside > MAX_RADICAND:
        raise TooLargeError
    divisor = 2
    while divisor * divisor <= inside:
        while inside % (divisor * divisor) == 0:
            inside //= divisor * divisor
            factor *= divisor
        divisor += 1
    coefficient = Fraction(factor, number.denominator)
    return Value({(inside, ()): coefficient}, {(1, ()): Fraction(1)}, a.decimal)


def same(a: Value, b: Value) -> bool:
    """Say whether two values are equal wherever both are defined. Raises TooLargeError."""
    return _multiply(a.over, b.under) == _multiply(b.over, a.under)


def symbols(a: Value) -> set[str]:
    """Return the names of the letters in a value, without pi."""
    names = {name for poly in (a.over, a.under) for _, powers in poly for name, _ in powers}
    return names - {"pi"}


def highest_power(a: Value, name: str) -> int:
    """Return the highest power of a symbol in the numerator or denominator."""
    monomials = [*a.over, *a.under]
    return max((exponent for _, p in monomials for n, exponent in p if n == name), default=0)


def approximate(a: Value) -> float | None:
    """Return a value without letters as a float, or None where it has letters or overflows."""
    if symbols(a):
        return None
    try:
        number = _approximate(a.over) / _approximate(a.under)
    except (OverflowError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _approximate(poly: Poly) -> float:
    return math.fsum(
        float(coefficient) * math.sqrt(radicand) * math.pi ** sum(e for _, e in powers)
        for (radicand, powers), coefficient in poly.items()
    )


def _bits(number: Fraction) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _clean(poly: Poly) -> Poly:
    kept = {monomial: c for monomial, c in poly.items() if c}
    if len(kept) > MAX_TERMS or any(_bits(c) > MAX_BITS for c in kept.values()):
        raise TooLargeError
    return kept


def _add(a: Poly, b: Poly) -> Poly:
    total = dict(a)
    for monomial, coefficient in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + coefficient
    return _clean(total)


def _multiply(a: Poly, b: Poly) -> Poly:
    total: Poly = {}
    for (radicand_a, powers_a), c in a.items():
        for (radicand_b, powers_b), d in b.items():
            shared = math.gcd(radicand_a, radicand_b)
            radicand = (radicand_a // shared) * (radicand_b // shared)
            monomial = (radicand, _join(powers_a, powers_b))
            total[monomial] = total.get(monomial, Fraction(0)) + c * d * shared
    return _clean(total)


def _join(
    a: tuple[tuple[str, int], ...], b: tuple[tuple[str, int], ...]
) -> tuple[tuple[str, int], ...]:
    if not a or not b:
        return a or b
    powers = dict(a)
    for name, exponent in b:
        powers[name] = powers.get(name, 0) + exponent
    return tuple(sorted(powers.items()))
