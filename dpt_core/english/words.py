"""English words that the grammar of prompts knows, by what they do; see :mod:`dpt_core.phrases`.

A word that stands in no list is taken for the name of a thing.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _sayings(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


NUMBERS = {
    word: count
    for count, word in enumerate(
        "one two three four five six seven eight nine ten eleven twelve".split(), start=1
    )
}
NUMBER_NAMES = {count: word for word, count in NUMBERS.items()}

COUNTED = {
    "a pair of": 2, "two pairs of": 2, "a couple of": 2, "a couple": 2, "couple of": 2,
    "pair of": 2, "a dozen": 12, "both": 2,
}  # fmt: skip
"""Sayings that are a number."""

AMOUNTS = _sayings(
    "a lot of, lots of, a bunch of, a group of, a herd of, a flock of, a piece of, pieces of, "
    "a slice of, slices of, a set of, a number of, a variety of, a kind of, a few, a little bit of,"
    "a pile of, a stack of, a row of, rows of, some kind of, all of the, each of the, plenty of,"
    "a bit of, a line of, a collection of, an assortment of, a large group of, a large number of,"
    "a small group of, a bunch, bunches of, a lot, an array of, a herd, a flight of, a sea of,"
    "an expanse of, a crowd of, a load of, a series of, a large herd of, a small herd of,"
    "a large bunch of, a big pile of, a large set of, several pieces of, herd of, group of,"
    "bunch of, piece of, pair, row of, stack of, pile of, most of the, most of, a gang of"
)
"""Sayings that stand before a thing and give it no number."""

DETERMINERS = words(
    "a an the it's some several many few his her their its this these those each every another any "
    "my our your various numerous multiple both all other"
)
NOT_COUNTED = words("no not without except none nothing neither never cannot isn't aren't nor")
"""Words that deny: what follows cannot be read as a thing that is there."""

PICTURES = words(
    "picture image photo photograph painting drawing illustration shot view sketch scene render "
    "rendering close-up closeup portrait photography snapshot"
)
OPENINGS = _sayings(
    "there is, there are, there's, this is, here is, an image with, a picture with, a photo with, "
    "a scene with, a close up of, close up of, a close up view of, a close up shot of, "
    "a close up picture of, a close up photo of, close up view of, close up photo of"
)
"""How a prompt may begin without naming a thing, besides "a photo of" and the like."""

COLOURS = words(
    "red green blue yellow purple black white gray grey brown orange pink gold silver tan beige "
    "teal maroon turquoise violet cyan magenta lavender navy khaki blond blonde golden crimson "
    "scarlet indigo burgundy aqua azure mint cream ivory bronze copper lime olive peach rose "
    "coral amber emerald reddish bluish greenish whitish yellowish brownish grayish greyish "
    "purplish pinkish multicolored multicoloured multi-colored tri-colored colorful colourful "
    "rainbow blackish tellow whit blue-green yellow-green blue-gray red-haired"
)
SHADES = words("light dark bright pale deep navy lime hot sky baby royal neon mint forest vivid "
                "olive very extremely really so all mostly solid slightly dull")  # fmt: skip
"""What may stand before a colour or a size and make it stronger or weaker."""

SIZES = words(
    "small large big tiny huge little tall short long giant gigantic massive enormous miniature "
    "wide narrow thick thin medium-sized larger smaller vast mini oversized hefty skinny fat "
    "compact spacious slim sized life-size full-sized"
)
MATERIALS = words(
    "wooden wood metal metallic plastic glass stone leather brick paper golden steel concrete "
    "marble ceramic wool woolen cotton silk rubber stainless gold silver granite wicker porcelain "
    "velvet tile tiled fabric cardboard bamboo denim iron straw hardwood linen lace mahogany oak "
    "maple canvas copper bronze clay crystal foil chrome fur furry fluffy"
)
PATTERNS = words(
    "striped checkered checked spotted plaid dotted floral patterned flowered polka-dot pokka-dot "
    "tie-dyed camouflage checkerboard paisley stripe polka dotted"
)
QUALITIES = words(
    "clear transparent elderly young old older new clean dirty beautiful pretty nice cute wet "
    "dry empty full open closed "
    "round square rectangular triangular oval lush grassy snowy rocky sandy muddy dusty cloudy "
    "sunny rusty shiny shining soft hard cold hot fresh ripe raw cooked stuffed single "
    "lone modern antique vintage fancy plain simple elegant ornate decorative decorated "
    "female male adult happy sad angry smiling lit wild stray busy quiet crowded cluttered messy "
    "tidy leafy bare curly curled straight sharp blunt flat steep shallow heavy strong "
    "low high electric electronic stainless wonderful gorgeous colored coloured shaggy scruffy "
    "furry fuzzy puffy fluffy hairy curved sliced chopped mixed frosted glazed broken "
    "european asian african american western royal domestic tropical rural urban suburban public "
    "private indoor outdoor interior exterior front rear upper lower top bottom left right inner "
    "outer dark light bright pale vivid weathered aged worn bearded haired walled sleeved legged "
    "different similar same identical matching separate unusual strange weird odd funny silly "
    "competitive calm tired asleep sleepy hungry comfortable cozy warm cool white-walled "
    "parked painted framed mounted fenced rimmed trimmed paved wooded snow-covered "
    "upright upside-down multiple-colored asphalt-paved mini-sized well-lit chubby slender "
    "delicious tasty creamy crispy juicy healthy green-and-white antique assorted ornamental "
    "tabby bald topless naked fake real floppy bushy spiky themed medieval futuristic realistic "
    "detailed cinematic dramatic vibrant minimalist abstract ancient rustic "
    "cobblestone country-style sleek sporty tight loose long-haired short-haired polar"
) - {"polar"}
ADJECTIVE_ENDINGS = ("-colored", "-coloured", "-covered", "-haired", "-topped", "-trimmed",
                     "-sized", "-patterned", "-striped", "-textured", "-walled",
                     "-shaped", "-like", "-faced",
                     "-eyed", "-looking", "-filled", "-style", "-story", "-tiered", "-framed",
                     "-rimmed", "-wearing", "-lined", "-painted", "-tailed", "-winged",
                     "-legged", "-headed", "-sleeved", "-old", "-made")  # fmt: skip

RELATIONS: dict[str, tuple[str, ...]] = {
    "left": _sayings("to the left of, on the left of, left of, on the left side of, "
                     "to the left side of, at the left of"),
    "right": _sayings("to the right of, on the right of, right of, on the right side of, "
                      "to the right side of, at the right of"),
    "on": _sayings("on top of, on the top of, atop of, on, atop, upon, onto, ontop of, "
                   "on the back of, on the front of, on the side of"),
    "above": _sayings("above, over, high above"),
    "below": _sayings("below, under, underneath, beneath, neath, down below"),
    "next to": _sayings("next to, beside, besides, near, by, close to, alongside, along side, "
                        "adjacent to, along with, near to, along, against, around, surrounded by, "
                        "at the side of, by the side of, on the side of, together with"),
    "in front of": _sayings("in front of, in the front of, before"),
    "behind": _sayings("behind, in back of, in the back of, at the back of, after"),
    "inside": _sayings("inside of, inside, into, within, in the middle of, in the center of, "
                       "in, in between, between, among, amongst, amid, in a field of"),
    "outside": _sayings("outside of, outside"),
    "at": _sayings("at, at the top of, at the bottom of, at the end of, at the edge of, "
                   "on the edge of, at the foot of"),
    "with": _sayings("with, including, has, have, having, featuring, containing, filled with, "
                     "covered with, covered in, topped with, decorated with, full of, made of, "
                     "made from, full up with, consisting of, attached to, had"),
    "of": ("of",),
    "across": _sayings("across from, across, through, past, towards, toward, down, up, off of, "
                       "off, out of, from, to, into, away from, for, about, during, as, like, "
                       "in the direction of, facing, opposite, opposite of, throughout"),
    "holding": _sayings("holding, holds, hold, carrying, carries, carry, held by, holding onto, "
                        "holding up, clutching, grabbing, gripping"),
    "wearing": _sayings("wearing, wears, wear, dressed in, clad in, wore"),
    "riding": _sayings("riding, rides, ride, riding on, rides on, riding on top of, driving, "
                       "drives, riding in"),
    "eating": _sayings("eating, eats, eat, chewing, biting, drinking, drinks"),
    "pulling": _sayings("pulling, pulls, pull, pushing, pushes, towing, dragging"),
}  # fmt: skip
"""What a relation is called here, and how it is worded."""

ASIDES = _sayings(
    "top left, top right, bottom left, bottom right, in the background, in the foreground, in "
    "the distance, in the air, in mid air, in midair, "
    "on the left, on the right, in the middle, in the center, at night, at the top, at the bottom, "
    "on the side, on the other side, on top, in front, in back, on both sides, on each side, "
    "to the left, to the right, at the same time, each other, one another, upside down, up close, "
    "close up, side by side, next to each other, next to one another, in a row, in a line, "
    "in a group, at sunset, at dusk, at the back, on his back, on its back, in color, well lit, "
    "in the dark, at an angle, for sale, in the sun, in the day, during the day, for a picture, "
    "as well, in the wild, in the open, of course, at home, on display, at rest, in action, "
    "getting ready, trying to, about to, ready to, in order to, next door, in half, on fire, "
    "in the corner, off the ground, down below, in the rain, a trick, in use, of the day, "
    "on it, in it, with it, next to it, behind it, under it, to it, to them, of them, on them, "
    "of it, behind him, behind her, next to him, next to her, on either side, standing up"
)
"""Sayings that name no thing."""

PRONOUNS = words(
    "it he she they him them hers himself herself itself themselves who which what that whose "
    "someone something everything everyone where when while there here others ones"
)
CONJUNCTIONS = words("and or & , ; but plus")
OTHERS = words(
    "very extremely really so too also just only almost nearly partially mostly completely "
    "together apart away around forward backward backwards downwards downward upwards upward "
    "outdoors indoors outside inside overhead nearby sideways ahead back out up down off over "
    "underneath then than as if because how why well not still yet again once twice even ever "
    "now maybe possibly probably likely ready able other next more most less least such quite "
    "half each way nicely comfortably closely primarily slightly lightly freshly fairly "
    "tightly neatly directly greatly firmly slowly quickly brightly fully a.m p.m "
    "far along asleep awake alone"
)

LY_NOUNS = words("butterfly family fly lily jelly belly doily dragonfly ply assembly")

VERBS = words(
    "is are was were be been being am do does did can could will would may might must should "
    "sits sit sat stands stood lies laid lays lay leans lean looks look looked takes take took "
    "plays flies hangs hang runs ran jumps rests sleeps walks moves travels poses catches catch "
    "throws throw hits hit swings talks talk gets get got goes go went comes come came makes "
    "make makes made puts put sets keeps keep gives give says say reads read shows shown show "
    "seems seem appears appear contains contain features features includes include surrounds "
    "adorn adorns grow grows hovers perches graze grazes float floats adds crosses passes "
    "stares stare waits waiting wait feeds kicks kick reaches reach stretches sticks surfs surf "
    "stuck built drawn worn held hung bent caught thrown driven prepares prepare tosses toss "
    "works work stick jump sleep eats gathered seen taken "
    "drives blows stays stay uses use crouches performs perform tries try wait watches watch "
    "pours approaches approach chases chase sniffs barks displays matches contrasts overlooks "
    "holds wears rides carries pulls eats touches climbs smiles squints fell fall falls "
    "peeks peek enjoys enjoy having let lets leads enter enters starts start stops follow follows "
    "kneels kneel bends bend decorates decorate covers fills emits reflects points indicates "
    "made stand walk swing pass hug hugs licks lick turns turn eat hold wear know think need want "
    "proceeds proceed lead speeds reveals appeal adds add don't doesn't aren't isn't let's "
    "operate swim swims lounges lounge dive dives bowed bites presents pose parks roam roams "
    "peers squat squats crawl crawls drink ate shine shines sail sails gather race races cook "
    "brushes brush serves serve cut cuts stalk flies paddle paddles splash rest"
)
"""Forms of verbs that do not end in -ing or -ed."""

SOMETIMES_NOUNS = words(
    "stands lies plays walks looks rests swings works sets shows covers points starts stops "
    "parks races brushes matches features displays runs jumps kicks cuts serves watch stand walk "
    "swing pass look rest show work play turn turns cook drink brush race cut set stick sticks "
    "can might crosses reaches falls fall surf jump poses pose catch hit kick lead use sleep sails "
    "sail start reflects lounge paddle paddles start passes flies moves try presents hug hugs "
    "feeds blows bends waits hangs crawl takes throws paints splash toss watches rides ride park"
)
"""Those that are things after a determiner, a number or an adjective."""

ING_NOUNS = words(
    "building buildings ceiling ceilings railing railings painting paintings wing wings king ring "
    "rings string strings thing things clothing bedding icing frosting lighting flooring shelving "
    "awning awnings covering crossing marking markings serving evening morning spring siding "
    "stuffing pudding dressing topping toppings filling wedding carving drawing drawings fencing "
    "landing crossing stocking stockings earring earrings duckling seating paneling wiring "
    "furnishing furnishings sling swing molding trimming railing helping gathering opening "
    "clearing setting surroundings sibling lightning cabinetry writing lettering something "
    "anything nothing everything sterling plumbing tubing skiing snowboarding surfing decking "
    "backing steering parking wii-ing"
)
ING_DOUBTFUL = words(
    "crossing surfing skiing snowboarding swimming serving steering backing covering filling "
    "helping gathering opening clearing drawing drawings parking landing setting marking topping "
    "dressing carving writing painting"
)
"""Those that are done rather than seen where they follow a thing or a verb."""

ING_MODIFIERS = words(
    "living dining parking cutting washing shopping cooking sitting swimming racing serving "
    "training sleeping rocking running walking hiking fishing dinning mixing vending flying "
    "drinking teething baking changing"
)
"""Those that make one thing with the noun after them: "living room"."""

ED_NOUNS = words(
    "bed beds shed sheds red seed seeds weed weeds feed sled sleds breed speed need moped mopeds "
    "steed bead thoroughbred bobsled newlywed hundred"
)

GARMENTS_AFTER_IN = words(
    "shirt jacket coat dress suit hat cap helmet tie uniform shorts pants jeans sweater vest "
    "skirt outfit hoodie costume robe boots shoes gear clothes clothing attire wetsuit top "
    "overcoat cardigan jersey glasses sunglasses apron scarf gloves goggles blouse bikini "
    "coveralls gown trunks suspenders leotard swimsuit snowsuit cape leather tuxedo blazer t-shirt"
)
