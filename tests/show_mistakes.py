"""Print every mistake of ``test_mistakes.py`` with the sentence that answers it, for a human to read.

``python tests/show_mistakes.py`` prints them; with ``--write`` they go into ``mistakes.txt``, once they are good.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

from test_mistakes import MISTAKES, SENTENCES, answer, prepare, shown


def main() -> None:
    warnings.simplefilter("ignore")
    blocks = []
    with tempfile.TemporaryDirectory() as name:
        folder, before = Path(name), Path.cwd()
        prepare(folder)
        os.chdir(folder)
        for mistake in MISTAKES:
            code, said, _ = answer(mistake, folder)
            blocks.append(shown(mistake, code, said))
        os.chdir(before)  # Windows removes no folder that somebody is in
    text = "\n".join(blocks)
    if sys.argv[1:] == ["--write"]:
        SENTENCES.write_text(text, "utf-8", newline="\n")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
