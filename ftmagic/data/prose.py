"""Sentences that stand around a citation: about its field, and about nothing, with distractors.

Owns the wording only. Years, names and numbers in here never belong to the cited work, and no
sentence is a citation itself. Even-numbered sentences surround training passages, odd-numbered
ones test passages, so a test never repeats a sentence that was trained on.
"""

from __future__ import annotations

import re

from ftmagic.data.works import Work

_ECOLOGY = re.compile(r"Ecol|Biometri[ck]|Oecol|Ecog|Ecosc|Biogeo|Animal|Vegetation|Ecohyd", re.I)
_ECOLOGY_TITLE = re.compile(r"species|ecolog|diversity|canonical|community|CANOCO", re.I)
_SOFTWARE = re.compile(
    r"\bR\b|packages?\b|Stata|LaTeX|software|Sweave|RStudio|knitr|^[a-z]\w+:", re.I
)

_ECONOMETRICS_PROSE = (
    "The panel covers 48 states and is unbalanced in its first waves.",
    "Our sample follows 595 workers over seven years, and most of them change jobs only once.",
    "Fixed effects remove what does not vary over time, at the price of its coefficients.",
    "Clustering the errors by firm widens the interval by a third without moving the estimate.",
    "With a short panel the bias does not vanish, however many households are observed.",
    "A test that ignores dependence across units rejects far too often here.",
    "Random effects are attractive when the regressors really are unrelated to the intercepts.",
    "Lagged levels are weak instruments once the series is close to a unit root.",
    "The coefficient on public capital changes sign as soon as state effects are allowed for.",
    "We found that two regions drive the whole result, so they are shown in a table of their own.",
    "Standard errors computed under independence would be misleading for these data.",
    "Neighbouring districts share shocks, which is why the weights matrix matters so much.",
    "None of the conclusions depends on the choice of the deflator.",
    "The referee asked for a robust version of the statistic, and the answer was the same.",
    "Identification comes from the reform of 1994 and from nothing else.",
    "Before 1973 the wage data were collected by hand, and about 40 firms are missing.",
)
_ECOLOGY_PROSE = (
    "Counts from small quadrats say more about effort than about the number of species.",
    "Sampling ended in October, after 62 plots along three transects had been visited twice.",
    "Rare species dominate the list, and nearly half of them were seen exactly once.",
    "A single index hides whether a site is rich or merely even.",
    "The meadows were mown late that year, which may explain the missing orchids.",
    "Two observers recorded the same traps independently and agreed on most beetles.",
    "Turnover along the gradient is larger than the difference between the valleys.",
    "Rarefied to a common number of individuals, the islands look much alike.",
    "What a null model holds constant decides what it can detect.",
    "Our permutations keep row and column totals, so they are slow for large tables.",
    "The ordination is stable when the three wettest sites are left out.",
    "Distances between centroids were compared by permutation, 999 times in all.",
    "Grazing stopped in 1986, and the shrubs have been spreading ever since.",
    "The herbarium holds 310 sheets from the region, the oldest of them from 1911.",
    "Nobody expects a lognormal curve to fit so few individuals.",
    "Detectability differs between forest and open ground, and it changes with the season.",
)
_SOFTWARE_PROSE = (
    "All tables were produced by a script, and the script is part of the appendix.",
    "Readers who prefer another program will find the data as plain text.",
    "Version 2.11 of the program fixed a bug that touched one of our tables.",
    "We ran everything twice, on two machines, and compared the output line by line.",
    "The package has a formula interface and returns an object with the usual methods.",
    "Installing it took less than a minute on a laptop bought in 2012.",
    "Documentation is short, but the examples can be pasted as they are.",
    "A workshop with 25 participants used the same files without any trouble.",
    "Results differ in the fifth digit because the optimisers stop at different points.",
    "The manual explains the options better than the help page does.",
    "Plots were drawn with the default theme and exported at 300 dots per inch.",
    "Keeping code and text in one file is what made the revision bearable.",
    "The maintainer answered within a day and added the option we had asked for.",
    "Memory was the limit: 16 gigabytes were not enough for the full matrix.",
    "Three of the five programs agree to the last printed digit.",
    "Students learn the syntax quickly and then begin to ask better questions.",
)
_GENERAL_PROSE = (
    "The seminar met on Thursdays in room 204 and was never better attended.",
    "Copies are kept at the front desk; please return them within 14 days.",
    "I last checked these pages in March 2019, and the links still worked.",
    "Thanks go to Marta Lindqvist, who read two drafts of this chapter.",
    "An earlier version of this section was circulated in 2016 under another heading.",
    "Professor Okafor used to say that the footnotes are where the fun is.",
    "Chapter 7 returns to the question with a larger sample.",
    "Whether this holds outside the laboratory is anybody's guess.",
    "The library will be closed from 23 December until 2 January.",
    "Accessed 4 June 2020.",
    "Our own contribution is modest and mostly a matter of bookkeeping.",
    "The remaining questions were left to the discussion on page 31.",
    "It was one of those papers that everybody praises and few have read to the end.",
    "The grant ran from 2009 to 2013 and paid for two research assistants.",
    "Much has been written on the subject since, not all of it helpful.",
    "Ms Duarte scanned the pages for us; the scan is 18 megabytes.",
)


def field_of(work: Work) -> str:
    """Name the field that a work belongs to: 'ecology', 'software' or 'econometrics'."""
    if _ECOLOGY.search(work.venue) or _ECOLOGY_TITLE.search(work.title):
        return "ecology"
    return "software" if _SOFTWARE.search(work.title) else "econometrics"


def sentences(work: Work, *, is_test: bool) -> list[str]:
    """List the sentences that may surround a citation of this work."""
    of_field = {
        "ecology": _ECOLOGY_PROSE,
        "software": _SOFTWARE_PROSE,
        "econometrics": _ECONOMETRICS_PROSE,
    }[field_of(work)]
    start = 1 if is_test else 0
    return [*of_field[start::2], *_GENERAL_PROSE[start::2]]
