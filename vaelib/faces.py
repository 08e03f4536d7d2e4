"""Faces: grey portraits with known switches and dials, drawn from their factors.

Nothing but its factors differs between two faces, so what a latent dimension does can be measured.
Each pixel is traced back to the point of the turned head that it shows; features are drawn there,
and so foreshorten by themselves. Grey is albedo times the light that falls on the normal, which
bumps (nose, cheeks, sockets) tilt.

Introduced in book/models/14_disentanglement.ipynb.
"""

from typing import Any

import torch
from torch import Tensor

from .arrays import Images
from .factors import SIZE, at_size, check_factors, check_size
from .modes import positive_int

#: How many classes each factor has, by name, in their order. Two switches have 2 classes, without
#: and with: glasses and facial_hair. Ten dials have 21, of which 10 is the middle. They are smile
#: (frown to smile), pose and light (from the picture's left to its right), head_width (narrow to
#: wide), skin and hair_tone (dark to light), hair_length (cropped to shoulders), eye_distance
#: (small to large), brows (low and thin to high and bushy) and nose (small to large).
FACTORS = {
    "glasses": 2,
    "facial_hair": 2,
    "smile": 21,
    "pose": 21,
    "light": 21,
    "head_width": 21,
    "skin": 21,
    "hair_tone": 21,
    "hair_length": 21,
    "eye_distance": 21,
    "brows": 21,
    "nose": 21,
}
CHUNK = 16  # faces at a time, so that what is in between stays in the CPU's cache
PIXEL = 0.040  # its side, where half the head's height is 1


def draw(factors: Any, size: int = 64) -> Tensor:
    """Portraits with these factors: int64 [N, 12] -> uint8 [N, 1, size, size].

    A face's mirror image is, to the bit, the face with pose 20 - c and light 20 - c. Brows and
    beard take their tone from hair and skin, so that they show on any skin.

    Args:
        factors: classes, in the order of `FACTORS`: whole numbers, anything that `torch.as_tensor`
            takes.
        size: pixels a side, 64 or 32; 32 is the mean of each 2 x 2 of 64, rounded.

    Raises:
        TypeError: for factors that are no whole numbers.
        ValueError: for factors of another shape or outside their range, or another size.

    Example:
        >>> import torch, vaelib
        >>> plain = torch.tensor([[0, 0] + 10 * [10]])
        >>> vaelib.faces.draw(plain).shape
        torch.Size([1, 1, 64, 64])
    """
    factors = check_factors(factors, FACTORS, "face")
    check_size(size)
    x = torch.empty(len(factors), 1, size, size, dtype=torch.uint8, device=factors.device)
    switch = torch.tensor([classes == 2 for classes in FACTORS.values()], device=factors.device)
    values = torch.where(switch, factors.float(), (factors - 10).float() / 10)  # dials: -1 to 1
    for rows, people in zip(x.split(CHUNK), values[..., None, None].split(CHUNK)):
        grey = _portrait(_Sitter(people)).clamp(0, 1)
        rows[:, 0] = at_size((255 * grey).round().to(torch.uint8), size)
    return x


def faces(n: int, seed: int = 0, size: int = 64) -> Images:
    """n grey portraits: x uint8 [n, 1, size, size], y int64 [n, 12].

    They are drawn, and show nobody. Every class of a factor is as likely as any other, and factors
    are independent; the columns of y are those of `vaelib.faces.FACTORS`. The caller's random state
    is left as it was.

    Args:
        n: how many; a second draws some hundreds.
        seed: of the factors.
        size: pixels a side, 64 or 32.

    Raises:
        ValueError: unless n is at least 1, and for another size.

    Example:
        >>> import vaelib
        >>> images = vaelib.data.faces(10)
        >>> images.x.shape, images.y.shape
        (torch.Size([10, 1, 64, 64]), torch.Size([10, 12]))
    """
    n, generator = positive_int("n", n), torch.Generator().manual_seed(seed)
    columns = [torch.randint(classes, (n,), generator=generator) for classes in FACTORS.values()]
    factors = torch.stack(columns, 1)
    return Images(draw(factors, size), factors)


# Drawing -----------------------------------------------------------------------------------------
# Pictures are [n, 64, 64], or what broadcasts to it. The unit of length is half the head's height,
# x runs to the right and y down from the head's centre.


def _inside(distance: Tensor) -> Tensor:
    """How much of a pixel is inside, by its centre's signed distance to the outline: 0 to 1."""
    return (0.5 - distance / PIXEL).clamp_(0, 1)


def _negative(f: Tensor) -> Tensor:
    """How much of a pixel has f < 0, for an f [n, 64, 64] that is no distance: 0 to 1."""
    down, right = torch.gradient(f, dim=(1, 2))
    return (0.5 - f * (down.square() + right.square() + 1e-6).rsqrt()).clamp_(0, 1)


def _ellipse(x: Tensor, y: Tensor, width: Any, height: Any) -> Tensor:
    """Signed distance to an ellipse of these half-axes, to first order."""
    p, q = x / width, y / height
    r2 = p.square() + q.square() + 1e-6
    return (r2 - r2.sqrt()) * ((p / width).square() + (q / height).square() + 1e-6).rsqrt()


def _step(x: Tensor, low: float, high: float) -> Tensor:
    """0 below low, 1 above high, smooth between."""
    t = ((x - low) / (high - low)).clamp_(0, 1)
    return t * t * (3 - 2 * t)


class _Sitter:
    """Who sits for the portrait, and the point of the head that each pixel shows.

    Factors and tones are [n, 1, 1]. The head is an ellipsoid with a narrower jaw; x and y are the
    picture's, nx, y and nz the normal, u is x on the head once it is turned back to the front, and
    front the cos of the longitude: 1 at the nose, 0 at the ears.
    """

    def __init__(self, factors: Tensor) -> None:  # [n, 12, 1, 1]
        f = self.factors = dict(zip(FACTORS, factors.unbind(1)))
        self.skin = 0.63 + 0.22 * f["skin"]
        self.dark = self.skin * (0.32 + 0.14 * f["hair_tone"])  # brows, beard: seen on any skin
        self.eye = 0.31 + 0.06 * f["eye_distance"]
        self.nose = 1 + 0.35 * f["nose"]
        self.long = 0.5 + 0.5 * f["hair_length"]
        self.cos, self.sin = (0.58 * f["pose"]).cos(), (0.58 * f["pose"]).sin()
        self.width = 0.77 + 0.09 * f["head_width"]

        pixels = torch.arange(SIZE, dtype=torch.float32, device=factors.device)
        line = (pixels + 0.5 - SIZE / 2) * PIXEL
        self.x, self.y = line, line[:, None] + 0.12
        taper = self.width * (1 - 0.08 * self.y - 0.14 * self.y.clamp(min=0).square())
        self.nx = self.x / taper
        r = (self.nx.square() + self.y.square()).sqrt()
        self.outline = 0.85 * (r - 1)
        self.nz = (1 - r.square()).clamp(min=0).sqrt()
        u = self.nx * self.cos - self.nz * self.sin
        z = self.nx * self.sin + self.nz * self.cos
        self.u, self.front = u * taper, z / (u.square() + z.square() + 1e-4).sqrt()

    def lit(self, nx: Any, ny: Any, nz: Any) -> Tensor:
        """Light on a surface of this normal, of any length; about 1 where it faces the light."""
        x, y, z = 1.2 * self.factors["light"], -0.45, 0.9
        cosine = (x * nx + y * ny + z * nz) * (
            (x * x + y * y + z * z) * (nx * nx + ny * ny + nz * nz)
        ).rsqrt()
        return 0.34 + 0.74 * (0.12 + 0.88 * cosine).clamp(min=0)


def _portrait(s: _Sitter) -> Tensor:
    """Grey [n, 64, 64], 0 to 1, painted from back to front."""
    hair, behind, cap, shadow = _hair(s)
    wall = (0.82 - 0.08 * s.y).expand_as(s.nx)
    image = _ears(_body(wall, s, hair, behind), s, near=False)
    chin = s.factors["facial_hair"] * _inside(s.outline - 0.05) * _step(s.y, 0.1, 0.5)
    image = image.lerp(_face(s) * shadow, chin.maximum(_inside(s.outline)))
    image = _ears(image, s, near=True).lerp(hair, cap)
    return _glasses(image, s, cap)


def _hair(s: _Sitter) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Its grey, how much of each pixel it fills behind the head and on it, and its shadow."""
    x, y, thick = s.x + 0.10 * s.sin, s.y + 0.14, 0.03 + 0.08 * s.long  # its back turns away
    p, q = x / (s.width + thick), y / (0.87 + thick)
    lit = s.lit(p, 0.7 * q, (1.1 - p.square() - q.square()).clamp(min=0).sqrt() + 0.25)
    strands = 1 + 0.05 * (17 * s.u).cos() + 0.04 * (29 * s.u).cos()
    gloss = 0.22 * (-((q + 0.72) / 0.12).square()).exp() * lit
    hair = (0.36 + 0.30 * s.factors["hair_tone"]) * lit * strands * (1 + gloss)

    crown = _ellipse(x, y, s.width + thick, 0.87 + thick)
    falling = (x.abs() - s.width - thick + 0.01 - 0.06 * y).maximum(-y)
    end = 0.05 + 1.30 * s.long - 0.30 * s.long * p.square().square()  # rounded below
    behind = _inside(crown).maximum(_inside(falling) * _step(end - s.y, -0.05, 0.08))

    temple, nape = _step(-s.front, -0.60, -0.10), _step(-s.front, 0.0, 0.35)
    line = -0.64 + 0.42 * s.u.square() + temple * (0.15 + 1.50 * s.long) + 0.3 * nape * (1 - s.long)
    below = s.y - line
    cap = _negative(below) * _inside(s.outline).maximum(behind * _step(-s.y, -0.75, -0.65))
    return hair, behind, cap, 0.72 + 0.28 * _step(below, 0.0, 0.16)


def _body(image: Tensor, s: _Sitter, hair: Tensor, behind: Tensor) -> Tensor:
    """Hair behind the shoulders, shirt, then the neck in the shadow of the chin."""
    image = image.lerp(hair, behind)
    shirt = 0.42 * s.lit(s.x, -0.5, 1.0)
    image = image.lerp(shirt, _inside(_ellipse(s.x, s.y - 1.78, 1.25, 0.72)))
    column = (s.x.abs() - 0.36).maximum((s.y - 0.78).abs() - 0.4)
    neck = column.minimum(_ellipse(s.x, s.y - 1.15, 0.36, 0.20))
    shadow = 0.62 + 0.25 * _step(s.y, 0.95, 1.35)
    return image.lerp(s.skin * shadow * s.lit(s.x / 0.45, 0.0, 1.0), _inside(neck))


def _ears(image: Tensor, s: _Sitter, near: bool) -> Tensor:
    """Both, before the head hides the far one; or after it the one that is turned to us."""
    for side in (-1, 1):
        x, y = side * s.x - s.width * s.cos, s.y - 0.05
        ear = _inside(_ellipse(x, y, 0.115, 0.21))
        if near:
            ear = ear * _step(-side * s.sin, 0.0, 0.25)
        rim = 1 - 0.35 * _inside(_ellipse(x, y, 0.055, 0.13))
        image = image.lerp(0.92 * s.skin * rim * s.lit(side * 0.9, 0.0, 0.8), ear)
    return image


def _face(s: _Sitter) -> Tensor:
    """The face, lit."""
    grey = _eyes(_mouth(_beard(s.skin.expand_as(s.nx), s), s), s)
    side, sign = s.u.abs(), s.u.sign()
    nose = s.u - 0.14 * s.sin * _step(s.y, -0.25, 0.25)  # it stands out, and so leads in a turn
    nostrils = _ellipse(nose.abs() - 0.08 * s.nose, s.y - 0.31, 0.045 * s.nose, 0.025)
    grey = grey * (1 - 0.55 * _inside(nostrils))

    nx, ny, smile = s.nx, s.y, s.factors["smile"]
    for x, along, y, wide, high, height in (  # bumps, whose slopes tilt the normal
        (nose, 1, 0.02, 0.05 + 0.03 * s.nose, 0.20, 0.09 * s.nose),  # the nose's bridge
        (nose, 1, 0.23, 0.04 + 0.07 * s.nose, 0.08, 0.13 * s.nose),  # its tip
        (side - s.eye, sign, -0.12, 0.14, 0.12, -0.05),  # sockets
        (side - 0.42, sign, 0.26, 0.18, 0.16, 0.045 + 0.025 * smile),  # cheeks
        (s.u, 1, 0.70, 0.25, 0.05, -0.014),  # below the lip
        (s.u, 1, 0.86, 0.20, 0.10, 0.03),  # chin
    ):
        p, q = x / wide, (s.y - y) / high
        bump = height * (-0.5 * (p.square() + q.square())).exp()
        nx, ny = nx + along * bump * p / wide, ny + bump * q / high
    return grey * s.lit(nx, ny, s.nz + 0.25)


def _beard(grey: Tensor, s: _Sitter) -> Tensor:
    """Moustache and full beard; cheeks stay bare."""
    cheeks = _ellipse(s.u, s.y + 0.12, 0.60, 0.56)
    beard = _step(cheeks, -0.04, 0.06) * _step(s.y, -0.20, 0.10) * _step(s.front, -0.15, 0.05)
    side = s.u / 0.32
    moustache = _inside((s.y - 0.41 - 0.08 * side.square()).abs() - 0.055 * (1.2 - side.square()))
    return grey.lerp(s.dark.expand_as(grey), s.factors["facial_hair"] * beard.maximum(moustache))


def _mouth(grey: Tensor, s: _Sitter) -> Tensor:
    smile = s.factors["smile"]
    q = (s.u / (0.29 + 0.03 * smile)).square()
    thin = (1 - q).clamp(min=0)  # towards the corners
    y = s.y - 0.55 - 0.13 * smile * (0.5 - q.clamp(max=1.3))
    gap = 0.07 * smile.clamp(min=0) * thin
    lips = _inside((-y - gap - 0.055 * thin).maximum(y - gap - 0.08 * thin)) * (q < 1)
    grey = grey.lerp((0.72 * s.skin).expand_as(grey), lips)
    line = _inside(y.abs() - gap - 0.014) * _step(-q, -1.15, -0.85)
    grey = grey.lerp((0.30 * s.skin).expand_as(grey), line)
    return grey + (0.95 - grey) * _inside(y.abs() - gap + 0.012) * (gap > 0.012)


def _eyes(grey: Tensor, s: _Sitter) -> Tensor:
    """Both at once: x runs outwards from each."""
    x, y = s.u.abs() - s.eye, s.y + 0.10
    outline = _ellipse(x, y, 0.155, 0.085)
    iris, spark = _ellipse(x, y, 0.085, 0.085), _ellipse(x, y + 0.045, 0.022, 0.022)
    ball = 0.95 - 0.79 * _inside(iris) + 0.6 * _inside(spark)
    grey = grey.lerp(ball, _inside(outline))
    lid = _inside(outline.abs() - 0.022) * _step(-y, 0.0, 0.05)
    bushy = s.factors["brows"]
    arch = y + 0.19 + 0.06 * bushy - 0.6 * (x - 0.03).square()
    brow = _inside((arch.abs() - 0.036 - 0.018 * bushy).maximum((x - 0.02).abs() - 0.19))
    return grey.lerp((0.7 * s.dark).expand_as(grey), lid).lerp(s.dark.expand_as(grey), brow)


def _glasses(image: Tensor, s: _Sitter, cap: Tensor) -> Tensor:
    """Over everything, but hair hides the arms; they sit before the eyes and so lead in a turn."""
    u, y = (s.u - 0.05 * s.sin).abs() - s.eye, s.y + 0.09
    lens, bar = _ellipse(u, y, 0.235, 0.19), (y + 0.03).abs() - 0.027
    frame = _inside((lens.abs() - 0.033).minimum(bar.maximum(u + 0.22)))
    arm = _inside(bar.maximum(0.22 - u)) * _inside(s.outline) * (1 - cap)
    on = s.factors["glasses"]
    image = image + on * 0.18 * _inside(lens) * (1 - image)
    return image + on * frame.maximum(arm * _step(s.front, 0.0, 0.15)) * (0.10 - image)


__all__ = ["FACTORS", "draw", "faces"]
