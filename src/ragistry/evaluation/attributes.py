"""Made-up attributes and names for LIMIT, as many as are needed, each a word of its own.

An attribute is a compound of two everyday words in the plural, so that a search by words can find exactly it. No first
part begins with another one, so that no two compounds are spelt alike; nor are any two stemmed alike.
"""

from __future__ import annotations

_BEFORE = (
    "amber azure bronze calm crisp dusty eager faint gentle hollow ivory jolly keen lively mellow noble olive plain quiet "
    "rapid scarlet tidy upper velvet wild young"
).split()
_FIRST = (
    "acorn apple barn basket beach bell berry bicycle blanket boat bottle bread brick bridge broom bubble butter button "
    "cabin candle canvas carpet castle chalk cherry clover coffee copper corner cotton crystal desert dinner dragon drum "
    "engine evening farm feather fence flag forest fountain garden ginger glass grape harbor hazel hedge honey island "
    "jacket jungle kettle kitchen ladder lake lamp lantern leather lemon library lunch maple marble market meadow melon "
    "mirror morning mountain mustard needle night ocean onion orchard paper pebble pepper pillow pine pocket pond pumpkin "
    "raft ribbon river rocket saddle salt school shadow shell silver snow spice spring stable station stone storm straw "
    "sugar summer tea thunder timber tower train tulip valley village violin wagon walnut water willow window winter wool"
).split()
_SECOND = (
    "badger ball band bank beetle bench bird board book boot bowl box branch card cart chain chair chest clock coat cook "
    "crown cup dancer desk door farmer field finch flower fork frame frog game gate guitar hammer hat hook house jar key "
    "kite knot leaf letter lizard map mask mill nest painter path pear pen piano pipe plate poem pot puzzle rabbit ring "
    "robe rope rug seed shelf ship shoe singer song spoon stair star stool swing sword tale tool toy trail tray vase "
    "wheel whistle worm"
).split()
_GIVEN = (
    "Abel Ada Agnes Alma Amos Anselm Astrid Basil Beata Bruno Cecily Clara Clement Conrad Cora Cyrus Daphne Delia Dorian "
    "Edith Edmund Elias Elsa Emil Enid Ernest Esther Felix Fiona Flora Frida Gideon Gilda Greta Gustav Harriet Hector Hilda "
    "Hugo Ida Ines Ingrid Ivor Jasper Joan Jonas Judith Julian Karl Lena Leopold Lydia Magnus Marta Maude Miles Mina Nadia "
    "Nils Nora Odette Olga Oscar Otto Paula Percy Petra Quentin Ralph Rita Roland Rufus Sabina Selma Silas Stella Tessa "
    "Theo Thora Ulric Ursula Vera Victor Viola Wanda Wilfred Xenia Yara Yorick Zelda"
).split()
_ROOTS = (
    "Alder Ash Bram Birch Brook Cal Dun Elm Fair Fern Glen Haw Heath Hol Kel Kirk Lang Lin Mar Mel Nor Oak Pem Quin Rad "
    "Raven Sel Stan Thorn Tor Ul Ver Wal Wes Win Yar"
).split()
_ENDS = "bourne by combe croft dale den field ford gate ham hurst ley mere more shaw stead ton wick wood worth".split()


def attribute(number: int) -> str:
    """The attribute with a number from 0: two words, and more of them past the first ten thousand or so.

    Example:
        >>> attribute(0), attribute(ATTRIBUTES)
        ('acornbadgers', 'amberacornbadgers')
    """
    words = []
    number, compound = divmod(number, ATTRIBUTES)
    while number:
        number, place = divmod(number - 1, len(_BEFORE))
        words.append(_BEFORE[place])
    second, first = divmod(compound, len(_FIRST))
    return "".join((*words, _FIRST[first], _plural(_SECOND[second])))


def person(number: int) -> str:
    """The name with a number from 0: given name and surname, past the first of them with more than one surname.

    Example:
        >>> person(0), person(PERSONS)
        ('Abel Alderbourne', 'Abel Alderbourne-Alderbourne')
    """
    number, name = divmod(number, PERSONS)
    surname, given = divmod(name, len(_GIVEN))
    surnames = [_surname(surname)]
    while number:
        number, surname = divmod(number - 1, len(_ROOTS) * len(_ENDS))
        surnames.append(_surname(surname))
    return f"{_GIVEN[given]} {'-'.join(surnames)}"


def _surname(number: int) -> str:
    end, root = divmod(number, len(_ROOTS))
    return _ROOTS[root] + _ENDS[end]


def _plural(word: str) -> str:
    if word.endswith("f"):
        return word[:-1] + "ves"
    return word + ("es" if word.endswith(("x", "ch", "sh")) else "s")


ATTRIBUTES = len(_FIRST) * len(_SECOND)
"""How many attributes are compounds of two words."""

PERSONS = len(_GIVEN) * len(_ROOTS) * len(_ENDS)
"""How many names have one surname."""
