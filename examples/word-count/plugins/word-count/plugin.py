"""Counts words; case and punctuation make no difference."""

import re
from collections import Counter

from towline_sdk.plugin import PermanentError


def count(config):
    words = Counter(re.findall(r"[\w']+", config["text"].lower()))
    if not words:
        raise PermanentError("the text has no words", code="EMPTY_TEXT")
    print(f"{words.total()} words, {len(words)} distinct")
    top = sorted(words, key=lambda word: (-words[word], word))[: int(config.get("top", 3))]
    return {
        "words": words.total(),
        "distinct": len(words),
        "top": [{"word": word, "count": words[word]} for word in top],
    }
