//! Names and descriptions of the articles of the generated shop.

/// A field of interest, with words for its articles.
pub(super) struct Theme {
    pub(super) name: &'static str,
    pub(super) nouns: [&'static str; 6],
    pub(super) uses: [&'static str; 4],
    pub(super) parts: [&'static str; 4],
}

/// A style of articles, independent of their theme.
pub(super) struct Style {
    pub(super) adjectives: [&'static str; 3],
    pub(super) sentence: &'static str,
}

pub(super) const STYLES: [Style; 4] = [
    Style {
        adjectives: ["light", "slim", "foldable"],
        sentence: "It weighs little and packs away small.",
    },
    Style {
        adjectives: ["sturdy", "solid", "heavy-duty"],
        sentence: "It is built to last for many years.",
    },
    Style {
        adjectives: ["colourful", "bright", "patterned"],
        sentence: "It comes in cheerful colours that stand out.",
    },
    Style {
        adjectives: ["simple", "plain", "basic"],
        sentence: "It does one thing well and costs little.",
    },
];

pub(super) const MAKERS: [&str; 12] = [
    "Arvel", "Bolina", "Corvo", "Dunmar", "Elsted", "Farrow", "Gantry", "Holmis", "Inverlay",
    "Jorvik", "Kestra", "Lundby",
];

pub(super) const THEMES: [Theme; 12] = [
    Theme {
        name: "hiking",
        nouns: ["tent", "rucksack", "headlamp", "walking pole", "rain jacket", "sleeping bag"],
        uses: ["long days on the trail", "nights in the mountains", "wet weather", "first tours"],
        parts: ["taped seams", "padded straps", "an aluminium frame", "a waterproof zip"],
    },
    Theme {
        name: "baking",
        nouns: [
            "bread tin",
            "dough scraper",
            "rolling pin",
            "cake ring",
            "proving basket",
            "whisk",
        ],
        uses: ["sourdough loaves", "birthday cakes", "Sunday rolls", "thin pastry"],
        parts: ["a non-stick coating", "a beech handle", "even heat", "dishwasher-safe steel"],
    },
    Theme {
        name: "fishing",
        nouns: [
            "fly rod",
            "spinning reel",
            "landing net",
            "tackle box",
            "lure set",
            "wading boots",
        ],
        uses: ["trout in small rivers", "pike in the lake", "the harbour wall", "early mornings"],
        parts: ["a cork grip", "smooth ball bearings", "sharp hooks", "a quick-release clip"],
    },
    Theme {
        name: "painting",
        nouns: ["watercolour set", "easel", "brush set", "canvas", "palette knife", "sketch pad"],
        uses: ["landscapes outdoors", "portraits", "classes and workshops", "quick studies"],
        parts: ["strong pigments", "acid-free paper", "sable hair", "a wooden case"],
    },
    Theme {
        name: "gardening",
        nouns: [
            "pruning shears",
            "seed tray",
            "watering can",
            "trowel",
            "plant label",
            "hose reel",
        ],
        uses: ["tomatoes and herbs", "rose beds", "raised beds", "balcony pots"],
        parts: ["hardened blades", "a brass rose", "drainage holes", "an ash handle"],
    },
    Theme {
        name: "cycling",
        nouns: ["bike pump", "saddle", "pannier", "chain oil", "rear light", "helmet"],
        uses: ["the daily commute", "gravel roads", "weekend races", "winter rides"],
        parts: ["a pressure gauge", "reflective strips", "a gel layer", "quick mounting"],
    },
    Theme {
        name: "music",
        nouns: ["guitar strings", "metronome", "music stand", "capo", "tuner", "drum sticks"],
        uses: ["practice at home", "the stage", "beginners", "recording sessions"],
        parts: ["a clear tone", "a steady beat", "hickory wood", "a clip with soft pads"],
    },
    Theme {
        name: "astronomy",
        nouns: ["telescope", "eyepiece", "star chart", "moon filter", "tripod", "binoculars"],
        uses: ["planets and moons", "deep-sky nights", "young observers", "dark sites"],
        parts: ["coated lenses", "slow-motion control", "a red lamp", "fine threads"],
    },
    Theme {
        name: "sewing",
        nouns: [
            "thread box",
            "fabric scissors",
            "pin cushion",
            "pattern paper",
            "bobbin set",
            "tape",
        ],
        uses: ["dresses and skirts", "mending jeans", "quilts", "curtains"],
        parts: ["long steel blades", "glass-headed pins", "fifty shades", "a magnetic base"],
    },
    Theme {
        name: "coffee",
        nouns: ["hand grinder", "pour-over cone", "milk jug", "espresso cup", "kettle", "scale"],
        uses: ["light roasts", "a strong espresso", "latte art", "slow mornings"],
        parts: ["ceramic burrs", "a goose neck", "a built-in timer", "thick porcelain"],
    },
    Theme {
        name: "climbing",
        nouns: ["harness", "chalk bag", "rope", "carabiner", "crash pad", "climbing shoes"],
        uses: ["limestone walls", "the indoor gym", "boulder problems", "alpine routes"],
        parts: ["gear loops", "a sticky sole", "a wire gate", "a fleece lining"],
    },
    Theme {
        name: "photography",
        nouns: ["camera strap", "lens cloth", "light meter", "film roll", "photo bag", "flash"],
        uses: ["street scenes", "family portraits", "black-and-white film", "macro shots"],
        parts: ["soft dividers", "fine grain", "a swivel head", "a leather pad"],
    },
];
