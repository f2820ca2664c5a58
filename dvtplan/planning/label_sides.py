"""Labels that belong to one side of the body, by their names or by where they lie.

Mirroring an image exchanges left and right, so it would train such a label on the other side's veins.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence

from dvtplan.core.text import shorten_list
from dvtplan.planning.fingerprint import CaseFingerprint

SIDES = """
    left links linke linker linkes linken linkerseits gauche gauches sinistra sinistro sinister sinistrum izquierda
    izquierdo izda izdo esquerda esquerdo vänster vänstra venstre lewa lewy lewe lewej levá levý vasen vasemman
    левая левый левое левой слева ліва лівий ліворуч лява ляво αριστερά αριστερό αριστερή
    levé vlevo lijeva lijevi lijevo stâng stânga vasak kairė kairysis kreisā kiri trái izqda izqdo vänsterben linkerbeen
    يسار أيسر اليسرى שמאל ซ้าย
    right rechts rechte rechter rechtes rechten rechterseits droite droites destra destro dexter dextrum dextra derecha
    derecho dcha dcho direita direito höger högra højre høyre prawa prawy prawe prawej pravá pravý oikea oikean
    правая правый правое правой справа права правий праворуч дясна дясно δεξιά δεξιό δεξί
    pravé vpravo desna desni desno drept dreapta parem dešinė dešinysis labā kanan phải högerben rechterbeen
    يمين أيمن اليمنى ימין ขวา
"""
"""Words that name a side wherever they stand."""

INSIDE = ("left", "right", "links", "rechts", "gauche", "droite", "sinistra", "destra", "izquierda", "derecha",
          "esquerda", "direita")  # fmt: skip
"""Words that name a side also at the start or end of a longer word, as in dvtleft."""
OTHER_WORDS = ("cleft", "bright", "upright", "outright", "downright", "fright", "wright", "aright", "leftover",
               "leftovers", "blinks")  # fmt: skip
"""Words that begin or end like that, but name no side."""
REST = ("over", "overs", "behind")
"""After the word left, these words mean a rest."""

SIGNS = ("左", "右", "왼", "오른", "좌측", "우측")
"""Parts of words that name a side in Chinese, Japanese and Korean."""

SHORT = (("l", "r"), ("li", "re"), ("lt", "rt"), ("sx", "dx"), ("sin", "dex"), ("sin", "dext"), ("izq", "der"),
         ("esq", "dir"), ("vä", "hö"), ("g", "d"), ("sol", "sağ"), ("bal", "jobb"))  # fmt: skip
"""Abbreviations and words of left and right that may mean something else if they stand alone."""
ALONE = frozenset({"l", "r"})
"""Those of them that name a side wherever they stand."""
AT_END = frozenset({"li", "re", "lt", "rt", "sx", "dx", "izq"})
"""Those that name a side at the end of a name, as in 'thrombus re' but not in 're-thrombosis'."""

ONE_SIDE = 0.9
"""A label lies on one side of a case if this share of its voxels does; veins of the pelvis may cross the middle."""
FEWEST_CASES = 3
"""Fewer cases show nothing about where a label lies."""
CHANCE = 0.05
"""Largest probability that labels that have no side lie like that."""


def reason(labels: Sequence[str], cases: Sequence[CaseFingerprint] = ()) -> str:
    """Explain why labels have sides; empty if they have none.

    Args:
        labels: all foreground labels.
        cases: where the labels lie; none to judge by names only.
    """
    named = named_sides(labels)
    if named:
        return f"the labels {shorten_list(named)} name a side"
    left, right = located_sides(labels, cases)
    if left and right:
        return (
            f"labels lie on one side of the body in every case (left: {shorten_list(left)}; right: "
            f"{shorten_list(right)})"
        )
    return ""


# --- names ----------------------------------------------------------------------------------------


def named_sides(labels: Sequence[str]) -> list[str]:
    """Return the labels whose name contains a side: LeftLeg, DVT_li, jambe droite, 左."""
    words = {label: _words(label) for label in labels}
    paired = {label for label in labels for other in labels if _differ_in_side(words[label], words[other])}
    short = {word for found in words.values() for word in found}
    return [label for label in labels if label in paired or _names_side(label, words[label], short)]


def counterparts(labels: Sequence[str]) -> dict[str, str]:
    """Return for each label that names a side the label of the other side: LeftLeg -> RightLeg, and the reverse.

    Empty if no label names a side, or if one has no counterpart.
    """
    sided = named_sides(labels)
    words = {label: _words(label) for label in sided}
    found = {
        one: [other for other in sided if other != one and _are_counterparts(words[one], words[other])] for one in sided
    }
    return {one: others[0] for one, others in found.items()} if all(len(o) == 1 for o in found.values()) else {}


def _are_counterparts(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two names are equal but for the side."""
    if _differ_in_side(one, other):
        return True
    differ = [(a, b) for a, b in zip(one, other, strict=False) if a != b]
    pairs = zip(INSIDE[::2], INSIDE[1::2], strict=True)
    return (
        len(one) == len(other)
        and len(differ) == 1
        and any(
            x.replace(left, right) == y and left in x for left, right in pairs for x, y in (differ[0], differ[0][::-1])
        )
    )


def _names_side(label: str, words: Sequence[str], all_words: set[str]) -> bool:
    """Return whether a name contains a side; ``all_words`` are those of all labels."""
    if any(_plain(sign) in _plain(label) for sign in SIGNS):
        return True
    for place, word in enumerate(words):
        if word == "left" and words[place + 1 : place + 2] and words[place + 1] in REST:
            continue
        if word in _SIDES or word in ALONE or (word in AT_END and place == len(words) - 1):
            return True
        if word not in OTHER_WORDS and (word.startswith(INSIDE) or word.endswith(INSIDE)):
            return True
        if any(word in pair and set(pair) <= all_words for pair in _SHORT if min(map(len, pair)) > 1):
            return True
    return False


def _differ_in_side(one: Sequence[str], other: Sequence[str]) -> bool:
    """Return whether two names are equal but for an abbreviated side: LFV and RFV, veine_g and veine_d."""
    if len(one) != len(other):
        return False
    differ = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if len(differ) != 1:
        return False
    a, b = differ[0]
    return any(
        {a, b} == {left, right} or _same_rest(a, b, left, right) or _same_rest(b, a, left, right)
        for left, right in _SHORT
    )


def _same_rest(a: str, b: str, left: str, right: str) -> bool:
    """Return whether one word is the other with ``left`` for ``right`` at its start or end."""
    if (left, right) == ("g", "d"):  # a single letter inside a word is no side in French
        return False
    at_start = a.startswith(left) and b.startswith(right) and a[len(left) :] == b[len(right) :]
    return at_start or (a.endswith(left) and b.endswith(right) and a[: -len(left)] == b[: -len(right)])


def _words(name: str) -> list[str]:
    """Split a name at other signs than letters and at capitals, without accents, in lower case."""
    text = _without_accents(name)
    for between in (r"(?<=[a-zа-яα-ω])(?=[A-ZА-ЯΑ-Ω])", r"(?<=[A-ZА-ЯΑ-Ω])(?=[A-ZА-ЯΑ-Ω][a-zа-яα-ω])"):
        text = re.sub(between, " ", text)
    return re.findall(r"[^\W\d_]+", text.casefold())


def _plain(text: str) -> str:
    return _without_accents(text).casefold()


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c))


_SIDES = frozenset(map(_plain, SIDES.split()))
_SHORT = tuple((_plain(left), _plain(right)) for left, right in SHORT)


# --- places ---------------------------------------------------------------------------------------


def located_sides(labels: Sequence[str], cases: Sequence[CaseFingerprint]) -> tuple[list[str], list[str]]:
    """Return the labels that lie on the left, and those that lie on the right, in every case that has them.

    Both are empty if this may be chance: a label without a side lies on one side of n cases by a probability of
    2^(1 - n), and a data set with many labels has many chances.
    """
    left, right, seen = [], [], 0
    for label in labels:
        shares = list(_left_shares(label, cases))
        if len(shares) < FEWEST_CASES:
            continue
        if min(shares) >= ONE_SIDE:
            left.append(label)
        elif 1 - max(shares) >= ONE_SIDE:
            right.append(label)
        else:
            continue
        seen += len(shares)
    several = len(left) + len(right)
    ways = math.comb(len(labels), several) * (2**several - 2)
    return (left, right) if left and right and ways <= CHANCE * 2**seen else ([], [])


def _left_shares(label: str, cases: Sequence[CaseFingerprint]) -> Iterator[float]:
    """Yield the share of a label's voxels on the left, for each case that has the label."""
    for case in cases:
        region = case.regions.get(label)
        if region is not None and region.voxels and region.left_share is not None:
            yield region.left_share
