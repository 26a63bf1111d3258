"""
watch

Samples of a process's memory and files over the cycles that it lives through,
and whether they show a slope: not that it has grown once, but that it goes on.
What comes and goes with the work (buffers of a backlog, megabytes of them) is
not in the least that a process has for a while; what leaks is.
"""
LEAST = 12              # samples; those of the first quarter do not count
STEP_KB = 4096
STEP_FILES = 2


def thirds(values):
    values = values[len(values) // 4:]
    third = len(values) // 3
    return values[:third], values[third:-third], values[-third:]


class Watch:
    def __init__(self):
        self.samples = {}       # (kB, files), by process id
        self.step = STEP_KB     # from one third to the next, to be called a leak

    def note(self, pid, kilobytes, files):
        self.samples.setdefault(pid, []).append((kilobytes, files))

    def leaks(self, pid):
        """In words; nothing if there is none to be seen."""
        samples = self.samples[pid]
        if len(samples) < LEAST:
            return []
        found = []
        a, b, c = (min(part) for part in thirds([one[0] for one in samples]))
        if b - a > self.step and c - b > self.step:
            found.append("process %d grows: %d, %d, %d kB" % (pid, a, b, c))
        a, b, c = (min(part) for part in thirds([one[1] for one in samples]))
        if b - a > STEP_FILES and c - b > STEP_FILES:
            found.append("process %d opens ever more files: %d, %d, %d" % (pid, a, b, c))
        return found
