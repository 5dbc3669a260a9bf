"""What may stand for a word in a sentence, so that it says something else."""

from __future__ import annotations

OPPOSITES = {
    "left": "right", "right": "left", "above": "below", "below": "above", "on": "below",
    "in front of": "behind", "behind": "in front of", "inside": "outside", "outside": "inside",
}  # fmt: skip

LIKES: tuple[tuple[str, ...], ...] = tuple(
    tuple(line.split())
    for line in (
        "circle square triangle cross",
        "cube sphere cylinder pyramid cone",
        "dog cat rabbit fox",
        "horse cow sheep goat",
        "elephant giraffe zebra bear lion tiger",
        "kitten puppy",
        "bird squirrel",
        "duck chicken parrot pigeon seagull",
        "car truck bus",
        "van truck bus",
        "taxi truck bus",
        "motorcycle bicycle scooter",
        "bike skateboard",
        "train bus",
        "boat truck",
        "airplane helicopter",
        "plane helicopter",
        "chair bench stool",
        "couch table desk",
        "sofa table desk",
        "bed desk couch",
        "bowl plate vase basket",
        "cup plate vase",
        "mug plate bowl",
        "fork spoon knife",
        "apple banana pear lemon",
        "apples bananas pears lemons",
        "carrot tomato potato onion",
        "broccoli lettuce spinach",
        "pizza sandwich burger cake pie salad",
        "donut cookie muffin",
        "shirt jacket",
        "sweater jacket vest",
        "coat shirt vest",
        "pants shorts",
        "jeans shorts",
        "hat helmet",
        "cap helmet",
        "tie scarf",
        "shoes boots sandals",
        "man woman",
        "boy girl",
        "men women",
        "boys girls",
        "backpack suitcase purse",
        "book newspaper",
        "laptop phone camera television",
        "clock mirror picture",
        "window door",
        "fridge stove oven dishwasher",
        "refrigerator stove oven dishwasher microwave",
        "toilet sink bathtub",
        "counter table shelf",
        "counters tables shelves",
        "wall floor",
        "walls floors",
        "umbrella flag balloon",
        "frisbee ball kite",
        "skateboard surfboard snowboard",
        "tree pole",
        "trees poles",
        "flower mushroom",
        "flowers mushrooms",
        "kitchen bathroom bedroom",
        "beach forest desert",
        "field beach",
        "house church barn",
        "bridge tower",
        "river road",
        "lake road",
        "towel blanket pillow curtain",
        "towels blankets pillows curtains",
        "hydrant mailbox",
        "teddy robot doll",
        "fence hedge",
        "skier skateboarder surfer",
        "guy lady",
        "shoe sock",
        "box bag",
        "lamp candle",
    )
)
"""Things that are alike enough to stand for each other in a sentence."""

COMMON_COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
"""What a colour is replaced by."""

SIZE_OPPOSITES = {
    "small": "large", "large": "small", "big": "small", "tiny": "huge", "huge": "tiny",
    "little": "big", "tall": "short", "short": "long", "long": "short", "wide": "narrow",
    "narrow": "wide", "thick": "thin", "thin": "thick", "massive": "tiny", "giant": "tiny",
}  # fmt: skip
QUALITY_OPPOSITES = {
    "young": "old", "old": "young", "clean": "dirty", "dirty": "clean", "wet": "dry", "dry": "wet",
    "open": "closed", "closed": "open", "empty": "full", "round": "square", "square": "round",
    "wooden": "metal", "plastic": "wooden", "metal": "wooden", "leather": "plastic",
    "stone": "wooden", "brick": "wooden", "glass": "wooden", "striped": "checkered",
    "checkered": "striped", "plaid": "striped", "spotted": "striped", "floral": "striped",
    "female": "male", "male": "female", "ripe": "rotten", "shiny": "dull",
}  # fmt: skip

TURNED = {
    "left": "right", "right": "left", "above": "below", "over": "under", "high above": "below",
    "below": "above", "under": "over", "underneath": "on top of", "beneath": "on top of",
    "on top of": "under", "on the top of": "under", "atop": "under", "in front of": "behind",
    "in the front of": "behind", "behind": "in front of", "in back of": "in front of",
    "inside": "outside", "inside of": "outside of", "outside": "inside", "outside of": "inside of",
}  # fmt: skip
"""A relation's words → the contrary. "On" and "in" stay: what hangs on a wall is not under it."""
