"""The frame of the pages of `report`: HTML that loads nothing, light or dark, of any width."""

from __future__ import annotations

from collections.abc import Iterable

from tflite_tools.reports import markup

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { font-weight: 600; line-height: 1.2; overflow-wrap: anywhere } h2 { margin-top: 2.2rem }
.wide { overflow-x: auto } table { border-collapse: collapse }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top;
         border-bottom: 1px solid var(--line) }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.passed { color: light-dark(#17702b, #6fce85) } .failed { color: light-dark(#b3261e, #ff8a80) }
.warning, .skipped { color: light-dark(#8a5a00, #e5b567) } .note { opacity: .75 }
.verdict { font-size: 1.15rem; font-weight: 600; padding: .7rem 1rem; background: var(--soft);
           border-left: 4px solid; border-radius: 3px }
.codes { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-size: .85rem } svg { max-width: 100%; height: auto }
pre { overflow-x: auto; background: var(--soft); padding: .8rem }
th.number { text-align: right }
.pinned th:first-child, .pinned td:first-child { position: sticky; left: 0; background: Canvas }
@media (max-width: 30rem) { body { font-size: 14px; margin: 1rem auto }
                            td, th { padding-right: .6rem } }
"""


def document(title: str, top: str, sections: Iterable[tuple[str, str]]) -> str:
    """A page as HTML text.

    Args:
        title: plain text.
        top: HTML under the title.
        sections: headings, plain text, and the HTML under them.
    """
    body = "\n".join(f"<h2>{markup.text(name)}</h2>\n{content}" for name, content in sections)
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{markup.text(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{markup.text(title)}</h1>\n{top}\n{body}\n</body></html>\n"
    )
