"""Nouns in the singular and in the plural."""

from __future__ import annotations

from .words import words

NOT_PLURAL = words(
    "grass glass dress bus gas lens canvas tennis compass cross boss moss mattress harness "
    "christmas bass class congress mess pass press octopus cactus iris citrus walrus hibiscus "
    "princess waitress actress this his its as is was has tennis species series chess brass "
    "zeus mass campus surplus goddess business circus menus lotus albatross swiss address "
    "wilderness fortress mistress hostess happiness darkness kiss loss asparagus hummus"
)
IRREGULAR = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "foot": "feet",
    "tooth": "teeth", "goose": "geese", "mouse": "mice", "knife": "knives", "wife": "wives",
    "leaf": "leaves", "shelf": "shelves", "loaf": "loaves", "calf": "calves", "wolf": "wolves",
    "half": "halves", "scarf": "scarves", "thief": "thieves", "elf": "elves", "hoof": "hooves",
    "sheep": "sheep", "fish": "fish", "deer": "deer", "tomato": "tomatoes", "potato": "potatoes",
    "hero": "heroes", "mango": "mangoes", "snowman": "snowmen", "policeman": "policemen",
    "fireman": "firemen", "gentleman": "gentlemen", "cactus": "cacti", "bus": "buses",
    "aircraft": "aircraft", "cookie": "cookies", "tie": "ties", "pie": "pies", "shoe": "shoes",
    "canoe": "canoes", "movie": "movies", "zombie": "zombies", "gas": "gases", "hoodie": "hoodies",
    "sandal": "sandals", "species": "species", "doggie": "doggies", "veggie": "veggies",
    "lens": "lenses", "axe": "axes", "house": "houses", "horse": "horses", "vase": "vases",
    "suitcase": "suitcases", "bookcase": "bookcases", "nose": "noses", "rose": "roses",
    "purse": "purses", "case": "cases", "blouse": "blouses", "cheese": "cheeses", "hose": "hoses",
    "base": "bases", "face": "faces", "fireplace": "fireplaces", "briefcase": "briefcases",
    "pose": "poses", "selfie": "selfies", "genie": "genies", "collie": "collies",
    "cake": "cakes", "toe": "toes", "leash": "leashes", "greenhouse": "greenhouses",
    "lighthouse": "lighthouses", "walrus": "walruses", "pillowcase": "pillowcases",
}  # fmt: skip
MASS = words(
    "snow water grass hair sky fur food furniture luggage bread rice broccoli cheese milk coffee "
    "tea juice wine beer sand mud rain paper clothing soup salad pasta meat pork beef chicken "
    "trousers jeans pants shorts scissors glasses sunglasses wood metal plastic glass stone smoke "
    "fire traffic dirt gravel ice fruit trim cabinetry goggles skis lettuce cereal"
)
"""Things that are not counted with a number before them."""


def singular(word: str) -> str:
    """A noun in the singular, by rule and a list of exceptions: "buses" → "bus"."""
    if word in _SINGULARS:
        return _SINGULARS[word]
    if word in NOT_PLURAL or word in MASS or not word.endswith("s") or len(word) < 4:
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zzes")):
        return word[:-2]
    return word if word.endswith(("ss", "us", "is")) else word[:-1]


def plural(word: str) -> str:
    """A singular noun in the plural: "bus" → "buses"."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def is_plural(word: str) -> bool:
    """Whether a noun stands in the plural; "sheep" may, and counts as not."""
    return singular(word) != word


_SINGULARS = {many: one for one, many in IRREGULAR.items()}
