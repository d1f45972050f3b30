"""How well the texts of a page stand out: the contrast that WCAG 2 asks for on level AA."""

# Every text that can be seen, with its colour and what it stands on: half transparent backgrounds lie on one another.
TEXTS = """
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].map(part => part / 255);
}
function ground(element) {
  if (!element) return [1, 1, 1];
  const [red, green, blue, alpha] = rgba(getComputedStyle(element).backgroundColor);
  const below = alpha < 1 ? ground(element.parentElement) : [0, 0, 0];
  return [red, green, blue].map((part, i) => part * alpha + below[i] * (1 - alpha));
}
return [...document.querySelectorAll('body *')]
  .filter(element => element.getClientRects().length > 0)
  .filter(element => [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim()))
  .map(element => {
    const style = getComputedStyle(element);
    const large = parseFloat(style.fontSize) >= (style.fontWeight >= 700 ? 18.66 : 24);
    return { text: element.innerText, front: rgba(style.color).slice(0, 3), back: ground(element), large };
  });
"""


def faint_texts(browser):
    """The texts that do not stand out enough, each with its contrast, and how many were looked at."""
    texts = browser.run(TEXTS)
    contrasts = [(text["text"], round(_contrast(text["front"], text["back"]), 2), text["large"]) for text in texts]
    return [(text, contrast) for text, contrast, large in contrasts if contrast < (3 if large else 4.5)], len(texts)


def _contrast(one, other):
    """WCAG 2's contrast ratio."""
    darker, lighter = sorted([_luminance(one), _luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour):
    """WCAG 2's relative luminance of a colour in sRGB."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
