"""What others take of the machine, and what is told meanwhile."""

import os
import resource
import sys
import time

TIMEOUT = 3600  # seconds that one run may take


class Watch:
    """Tells what share of the machine others than this program's children take."""

    def __init__(self):
        self.began, (self.all, self.own) = time.time(), self.busy()

    def foreign(self):
        everything, own = self.busy()
        return max(0.0, (everything - self.all - (own - self.own)) / ((time.time() - self.began) * os.cpu_count()))

    @staticmethod
    def busy():
        """The machine's busy CPU seconds, and those of this program's finished children."""
        with open("/proc/stat", encoding="ascii") as f:
            v = [int(x) for x in f.readline().split()[1:]]
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(v[i] for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK"), child.ru_utime + child.ru_stime


def brief(r):
    for key, form in (
        ("decode_tokens_per_s", "%.1f tokens/s"),
        ("step_s", "%.3f s/step"),
        ("step_s_median", "%.3f s/step"),
        ("fit_s", "%.2f s"),
        ("seconds", "%.2f s"),
        ("tokens_per_s", "%.0f tokens/s"),
    ):
        if key in r:
            v = r[key]["median"] if isinstance(r[key], dict) else r[key]
            return form % v + ("  %.0f MB" % r["peak_rss_mb"] if "peak_rss_mb" in r else "")
    return ""


def note(text):
    print(text, file=sys.stderr, flush=True)
