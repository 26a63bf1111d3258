"""
notes

What somebody has written into a file of results stays when it is written anew,
if it stands between two marks.
"""
NOTES = ("<!-- notes -->", "<!-- end of notes -->")


def notes_of(text):
    """As lines, with the marks around them; empty ones to be filled if there are none."""
    begin, end = map(text.find, NOTES)
    return text[begin:end + len(NOTES[1])].splitlines() if 0 <= begin < end else list(NOTES)
