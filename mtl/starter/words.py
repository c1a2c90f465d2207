"""The words by which columns and values are recognized."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# --- names of columns ---

ORDERED = _words("rating stars star grade level severity stage score rank priority risk")
COUNTED = _words(
    "n num number count counts total age years days visits amount price quantity revenue income salary cost costs "
    "sales turnover profit balance budget spend value population"
)
"""Words that tell whether whole numbers are grades or quantities."""
CODED = _words(
    "code codes zip zipcode postcode postal plz npa naics sic nace isco icd category cat type kind sector industry "
    "department dept branch store shop region district county cluster segment group channel model brand"
)
"""Words that tell that whole numbers are names of things."""
OUTCOMES = _words(
    "target targets label labels outcome outcomes response y diagnosis result churn churned fraud default defaulted "
    "survived died death dead mortality readmitted converted conversion clicked purchased bought cancelled canceled "
    "attrition exited approved rejected passed failed won lost sold returned recovered relapse relapsed"
)
"""Words that tell that the values are known only afterwards."""
UNNAMED = frozenset(("", "unnamed: 0", "unnamed: 0.1", "__index_level_0__", "level_0"))
"""Names that a column of row numbers gets if a program writes it without being asked."""
IDS = _words("id uuid guid key index row")

PERSONS = _words(
    "person patient customer client user subject participant respondent household family student pupil employee driver "
    "member account device machine store shop site hospital clinic school"
)
"""Words that tell that a column names those to whom several rows may belong."""

# --- values ---

YES = _words("yes y true t 1 pos positive ja j oui si sí")
NO = _words("no n false f 0 neg negative nein non")
SCALES = (
    ("very low", "low", "medium", "high", "very high"),
    ("none", "mild", "moderate", "severe", "critical"),
    ("never", "rarely", "sometimes", "often", "always"),
    ("very poor", "poor", "fair", "good", "very good", "excellent"),
    ("strongly disagree", "disagree", "neutral", "agree", "strongly agree"),
    ("xs", "s", "m", "l", "xl", "xxl"),
    ("low", "mid", "high"),
    ("small", "medium", "large"),
)
"""Values that have a usual order."""
WORDS_FOR_NOTHING = _words("none None nil missing Missing MISSING unknown Unknown UNKNOWN")
"""Words that mean a missing value among numbers, but are usual classes among words."""
MARKERS = WORDS_FOR_NOTHING | _words(
    "NA N/A n/a na n.a. N.A. NaN nan NaT NULL null Null (null) #N/A #NA <NA> #DIV/0! #VALUE! #REF! #NUM! "
    "- -- --- ? . .. *"
)
"""Texts that mean a missing value in a column whose other texts are numbers or dates."""
TOTALS = _words(
    "total totals subtotal sum sums summe gesamt gesamtsumme zwischensumme insgesamt totale totaal somme suma average "
    "avg mean median mittelwert durchschnitt moyenne media"
) | {"grand total", "sub total", "total general", "total général", "all rows"}
"""Texts that say that a row sums up the others, in lower case."""
SPLITS = _words("eval evaluation holdout hold-out heldout")
"""Words for a split that no reader knows, because they mean validation to some and test to others."""

# --- units ---

CURRENCIES = _words(
    "CHF EUR USD GBP JPY CNY INR AUD CAD NZD SEK NOK DKK ISK PLN CZK HUF RON TRY BRL MXN ZAR SGD HKD KRW THB "
    "Fr. SFr. kr kr. R$ US$ C$ A$ zł Kč Ft Rs Rs."
)
MEASURES = _words("% ‰ ° °C °F kg g mg µg t lb lbs oz km m cm mm mi ft l ml h min s ms kWh MWh kW W V A Hz")
"""Units that stand before or after a number, and those that stand after it only."""
