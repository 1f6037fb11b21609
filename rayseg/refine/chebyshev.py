"""Powers of a symmetric transition matrix between near pixels, by Chebyshev polynomials.

With affinities A_ij of pixels less than a radius apart, A_ii = 1, D_i = sum_j A_ij and maps x as
rows,

    x T^n,    T_ij = A_ij / D_j

T is similar to the symmetric S = D^-1/2 A D^-1/2, whose eigenvalues lie in [-1, 1], and there

    s^n = 2^(1-n) sum over k = n, n - 2, ... of C(n, (n - k) / 2) T_k(s)    (half of it for k = 0)

For n = 256 the terms beyond k = 104 add up to less than 1e-10. Each T_k+1 = 2 S T_k - T_k-1 takes
one product with S, which is one multiplication a pair and direction, and the same T_k give every
smaller n.
"""

from collections.abc import Iterable, Sequence
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from rayseg.records.pairs import pixel_pairs

Term = tuple[Tensor, Tensor, Tensor]

_BLOCK = 2**14
"""Pixels that a CPU works on at a time, so that they stay in its cache."""


class Transitions:
    """2 S of images of one size, as one plane for each offset.

    Rows of a plane end in radius - 1 empty cells. So each offset is a shift of the flattened grid,
    and what leaves the image on one side meets zeros instead of the other side.

    Args:
        affinities: A, one plane for each offset of `pixel_pairs`; 0 where the target lies outside.
            They are read one after the other, so that they need not lie in memory together.
        radius: of the pairs.
        like: of the shape, number format and device of such a plane.
    """

    def __init__(
        self,
        affinities: Iterable[Float[Tensor, "n h w"]],
        radius: int,
        like: Float[Tensor, "n h w"],
    ):
        number, self.height, self.width = like.shape
        self.pitch = self.width + radius - 1
        self.cells = self.height * self.pitch
        offsets = pixel_pairs(radius).offsets_yx.tolist()
        inside = [y < self.height and abs(x) < self.width for y, x in offsets]
        shifts = [y * self.pitch + x for y, x in offsets]
        self.shifts = [shift for shift, kept in zip(shifts, inside, strict=True) if kept]
        # one tensor: pieces of megabytes leave holes between them in the memory of a process
        self.planes = like.new_zeros(len(self.shifts), number, 1, self.cells)
        grids = iter(self.planes.unflatten(3, (self.height, self.pitch)))
        for plane, kept in zip(affinities, inside, strict=True):
            if kept:
                next(grids)[:, 0, :, : self.width] = plane
        sums = self._sums()
        roots = sums.sqrt()
        for plane, shift in zip(self.planes, self.shifts, strict=True):
            kept = self.cells - shift
            plane[..., :kept] *= 2 / (roots[..., :kept] * roots[..., shift:])
        self.own, self.root = (2 / sums).to(like.dtype), roots.to(like.dtype)

    def _sums(self) -> Float[Tensor, "n 1 cells"]:
        """D, 1 in the empty cells; in float64, as n steps make n times their error of it."""
        sums = self.planes.new_ones(self.planes.shape[1:], dtype=torch.float64)
        for plane, shift in zip(self.planes, self.shifts, strict=True):
            sums += plane
            sums[..., shift:] += plane[..., : self.cells - shift]
        return sums

    def flat(self, planes: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k cells"]:
        """A copy with the empty cells, rows one after the other."""
        made = planes.new_zeros(*planes.shape[:2], self.height, self.pitch)
        made[..., : self.width] = planes
        return made.flatten(2)

    def powers(
        self, maps: Float[Tensor, "n k h w"], exponents: Sequence[int], tolerance: float
    ) -> Float[Tensor, "t n k h w"]:
        """Maps times T to the power of each exponent, in the number format of the affinities.

        Args:
            tolerance: what the factors of the polynomials that are left out may add up to.
        """
        series = [chebyshev_series(exponent, tolerance) for exponent in exponents]
        last = max(map(len, series)) - 1
        # y = D^-1/2 S^n D^1/2 x, since T's transpose is D^-1 A
        now = self.flat(maps.to(self.root.dtype)).mul_(self.root)  # T_k(S) D^1/2 x
        before, product = torch.zeros_like(now), torch.empty_like(now)
        sums = now.new_zeros(len(exponents), *now.shape)
        of_now, of_before = self._terms(now, product), self._terms(before, product)
        for k in range(last + 1):
            for total, factors in zip(sums, series, strict=True):
                if k < len(factors) and factors[k]:
                    total.add_(now, alpha=factors[k])
            if k < last:
                self._multiply(now, product, of_now)
                torch.sub(product, before, out=before)
            if k == 0:
                before.mul_(0.5)  # T_1(S) = S
            now, before, of_now, of_before = before, now, of_before, of_now
        sums /= self.root
        return sums.unflatten(3, (self.height, self.pitch))[..., : self.width]

    def _multiply(self, source: Tensor, product: Tensor, terms: Iterable[Term]) -> None:
        """2 S source into the product.

        The many small terms are added first: each is rounded to the size of the sum that it joins,
        alike in every step, and with T_k-1 or the pixel's own term in it that gives 4e-4 in float32
        instead of 3e-5.
        """
        product.zero_()
        for some, weight, other in terms:
            some.addcmul_(weight, other)
        product.addcmul_(self.own, source)

    def _terms(self, source: Tensor, product: Tensor) -> list[Term]:
        """Views of product, weights and source; the first gets what the others give multiplied."""
        block = self.cells if source.is_cuda else _BLOCK
        found = []
        for low in range(0, self.cells, block):
            high = min(low + block, self.cells)
            for plane, shift in zip(self.planes, self.shifts, strict=True):
                stop, start = min(high, self.cells - shift), max(low, shift)
                if stop > low:  # from the targets of pairs to their sources
                    to, other = slice(low, stop), slice(low + shift, stop + shift)
                    found.append((product[..., to], plane[..., to], source[..., other]))
                if high > start:  # ... and the other way
                    to, other = slice(start, high), slice(start - shift, high - shift)
                    found.append((product[..., to], plane[..., other], source[..., other]))
        return found


def chebyshev_series(exponent: int, tolerance: float) -> list[float]:
    """Factors of the Chebyshev polynomials T_0, T_1, ... that add up to x^exponent.

    They are positive and add up to 1; those at the end that add up to less than the tolerance are
    left out.
    """
    whole = 2 ** (exponent - 1)
    factors: list[float] = []
    for k in range(exponent + 1):
        if (exponent - k) % 2:
            factors.append(0.0)
            continue
        share = comb(exponent, (exponent - k) // 2) / whole
        factors.append(share / 2 if k == 0 else share)
        if 1 - sum(factors) < tolerance:
            break
    return factors
