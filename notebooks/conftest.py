"""nbval compares outputs exactly; numbers of networks that are trained on the page, to a tolerance.

Another processor rounds other last bits, and training carries them on. Cells that show such numbers have a tag of
TOLERANCES. In them, numbers with decimals and percentages may differ by ``relative * |stored| + absolute`` and one in
the last place that is printed; whole numbers, so shapes and counts, words, and the number and kind of outputs may not
differ. docs/reproducibility.md says how the values were measured.
"""

import re
from importlib.util import find_spec

TOLERANCES = {
    "rounded": (0.0, 0.0),  # relative, absolute; nothing is trained, but a last bit may turn the last place
    "trained": (0.05, 0.01),
    # The order of size only: cosines of vectors that collapse, a critic without skill, deviations over three seeds.
    "trained-unstable": (0.5, 0.2),
}
# Of cells that need packages of an extra: where one is missing they say so, and are not compared.
EXTRAS = {"needs-extract": ("av", "opensmile", "mediapipe")}
NUMBER = re.compile(r"(?<!\w)[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?: ?%)?(?!\w)")
LAST_RESORT = 300  # seconds in which the last message of a cell must arrive; nbval's 5 are too few for a busy machine


def lacks_extra(cell):
    """Whether a cell's tags ask for a package that is not installed."""
    return any(find_spec(package) is None for tag in cell.metadata.get("tags", []) for package in EXTRAS.get(tag, ()))


def pytest_itemcollected(item):
    """Let nbval's cells compare as said above."""
    if not hasattr(item, "compare_outputs"):
        return
    item.output_timeout = LAST_RESORT
    tags = item.cell.metadata.get("tags", [])
    if lacks_extra(item.cell):
        item.compare_outputs = lambda *_, **__: True
        return
    chosen = [TOLERANCES[tag] for tag in tags if tag in TOLERANCES]
    exactly = item.compare_outputs

    def compare(found, stored, **options):
        found = [output for output in found if not _is_passing(output)]
        return exactly(_settled(found, stored, chosen[0], item.sanitize) if chosen else found, stored, **options)

    item.compare_outputs = compare


def _is_passing(output):
    """Progress and sliders, of which none is stored."""
    return output.get("name") == "stderr" or any("jupyter.widget" in kind for kind in output.get("data", {}))


def _settled(found, stored, tolerance, sanitize):
    """The outputs ``found``, with each text that agrees with the stored one in the place of that."""

    def settle(new, old):
        for key, text in new.items():
            if isinstance(text, str) and isinstance(old.get(key), str):
                new[key] = old[key] if agree(sanitize(text), sanitize(old[key]), *tolerance) else text

    for new, old in zip(found, stored, strict=False):
        settle(new, old)
        settle(new.get("data", {}), old.get("data", {}))
    return found


def agree(found, stored, relative, absolute):
    """Whether two texts are equal up to white space and up to the tolerance of their numbers."""
    words = [" ".join(NUMBER.sub(" # ", text).split()) for text in (found, stored)]
    numbers = zip(NUMBER.findall(found), NUMBER.findall(stored), strict=False)
    return words[0] == words[1] and all(_close(new, old, relative, absolute) for new, old in numbers)


def _close(found, stored, relative, absolute):
    if found == stored:
        return True
    if not all(re.search(r"[.e%]", number) for number in (found, stored)):
        return False
    new, old = (float(number.replace("−", "-").rstrip(" %")) for number in (found, stored))
    mantissa, _, exponent = stored.rstrip(" %").partition("e")
    last_place = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    # 1e-7 is written so because its order matters: no absolute tolerance. Percentages are hundredths.
    scale = 0 if exponent else 100 if "%" in stored else 1
    return abs(new - old) <= relative * abs(old) + absolute * scale + last_place * 1.001
