"""
A minute of chaos (tests/chaos), of always the same faults; `make chaos` makes others, and more of them.
"""
import os
import sys

from service import TOP

sys.path.append(os.path.join(TOP, 'tests', 'chaos'))

from chaos import Chaos, print_table, result_of  # pylint: disable=wrong-import-position

SECONDS = 60
SEED = 1


def test_nothing_is_wrong_lost_doubled_in_disorder_or_hung():
    chaos = Chaos(SECONDS, SEED).run()
    result = result_of(chaos)
    print_table(result)
    assert result['good']
    # Under a sanitizer or valgrind all is slow.
    answered = result['outcomes']['answered'] / SECONDS
    assert answered > (2 if chaos.instrumented else 10) and len(chaos.faults.all) > SECONDS / 4, 'that was no chaos'
