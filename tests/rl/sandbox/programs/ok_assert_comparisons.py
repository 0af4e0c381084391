# {"verdict": ["OK"], "tests": {"kind": "assert", "tests": [{"input": "from collections import Counter, OrderedDict, defaultdict\nassert 1 < f(1) <= 2 != 3 and not f(0) and f(1) in (2, 4) and 5 not in [f(1)]\nassert 'a' in words('a b') and not words('') and words('a b') == {'a': 1, 'b': 1} == Counter(b=1, a=1)\nassert f(None) is None is not False\nassert Counter(a=0) == Counter() and OrderedDict(a=1, b=2) != OrderedDict(b=2, a=1)\nassert point() == (1, 2) and point().x == 1 and rows() == [(1, 2)] and {1, 2} >= few()\nassert Level.HIGH > Level.LOW and Level.HIGH == 2 and Level(2) in [Level.HIGH]"}]}}
from collections import defaultdict, namedtuple
from enum import IntEnum
Point = namedtuple('Point', 'x y')
class Level(IntEnum):
    LOW = 1
    HIGH = 2
class Few(set):
    pass
def f(x):
    return x if x is None else x * 2
def words(text):
    counts = defaultdict(int)
    for word in text.split():
        counts[word] += 1
    return counts
def point():
    return Point(1, 2)
def rows():
    return [point()]
def few():
    return Few([1])
