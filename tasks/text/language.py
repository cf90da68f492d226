"""How surely a text is in a language, offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from tasks.core.errors import FlywheelError

# Below this many bytes a detector guesses; such texts are not judged. A Chinese character is three bytes and says as
# much as three Latin letters.
MIN_BYTES_TO_DETECT = 40


class LanguageUnknown(FlywheelError):
    """The domain's language is none that can be detected."""


@lru_cache(maxsize=4)
def language_confidence(language: str) -> Callable[[Sequence[str]], list[float]]:
    """A function from texts to the confidence (0 to 1) that each is in `language`, an ISO 639-1 code; on all cores.

    The detector (lingua) spreads its confidence over all languages it knows, and English about Swedish law may get
    little of it; a text of another language gets next to none, which is what the bound in params.yaml separates.

    Raises:
        LanguageUnknown: the detector does not know the language.
    """
    from lingua import IsoCode639_1, Language, LanguageDetectorBuilder

    try:
        wanted = Language.from_iso_code_639_1(IsoCode639_1.from_str(language.upper()))
    except ValueError:
        raise LanguageUnknown(f"language {language!r} in domain.yaml is not one that can be detected") from None
    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()

    def confidences(texts: Sequence[str]) -> list[float]:
        judged = [text for text in texts if len(text.encode()) >= MIN_BYTES_TO_DETECT]
        found = iter(detector.compute_language_confidence_in_parallel(judged, wanted))
        # Its last digits differ from run to run (sums in no fixed order), and stage outputs may not.
        return [float(f"{next(found):.3g}") if len(t.encode()) >= MIN_BYTES_TO_DETECT else 1.0 for t in texts]

    return confidences
