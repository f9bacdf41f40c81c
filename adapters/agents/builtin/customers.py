"""The built-in agent's `enrich_customer`: normalizes a customer record and derives insights from it."""

import re
import unicodedata

from sevenfold.adapters.agents.builtin.text import enumerate_words, word_set
from sevenfold.adapters.agents.json_input import InputScope, identifier, show
from sevenfold.contracts.agents.interface import AgentRequest, Reply
from sevenfold.contracts.payload import JsonObject

_FREEMAIL = word_set(
    """aol.com fastmail.com gmail.com gmx.at gmx.ch gmx.com gmx.de gmx.net googlemail.com hey.com hotmail.co.uk
    hotmail.com hotmail.fr icloud.com laposte.net libero.it live.com mac.com mail.com mail.ru me.com msn.com
    naver.com orange.fr outlook.com outlook.de pm.me proton.me protonmail.com qq.com rediffmail.com t-online.de
    tutanota.com web.de yahoo.co.jp yahoo.co.uk yahoo.com yahoo.de yahoo.fr yandex.ru ymail.com zoho.com 126.com
    163.com"""
)
_DISPOSABLE = word_set(
    """10minutemail.com discard.email getnada.com guerrillamail.com mailinator.com maildrop.cc sharklasers.com
    temp-mail.org tempmail.com throwawaymail.com trashmail.com yopmail.com"""
)
_ROLES = word_set("admin billing contact hello help info mail no-reply noreply office sales support team")
# The second level of such domains is a category, not a company.
_CATEGORIES = word_set("ac co com edu gov net ne or org")
_PARTICLES = word_set("af al bin da de del della den der di dos du el la le ten ter van von y zu")

_EMAIL = re.compile(r"[^\s@<>\"(),:;]{1,64}@((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24})")
_EXPECTED = ("name", "email", "company", "country", "phone")


def enrich_customer(request: AgentRequest) -> Reply:
    """Returns the normalized customer: name, address, company, segment, and insights as text.

    Reads `data` (or `data.customer`): id, name or firstName and lastName, email, company, employees, country, phone,
    plan, previousInteractions. Rejects a record with neither id nor name nor email.
    """
    scope = InputScope.from_request(request).narrow("customer")
    customer_id = _customer_id(scope)
    name = normalized_name(scope)
    email = (scope.word("email", "emailAddress", "mail") or "").casefold() or None
    if customer_id is None and name is None and email is None:
        raise scope.missing("email", "There is no customer to enrich: neither id, name nor email")
    domain, kind = classify_email(email)
    company = scope.word("company", "companyName", "organization", "organisation")
    guessed = _company_of(domain) if company is None and kind == "company" else None
    segment = _segment(scope, kind)
    missing = [field for field in _EXPECTED if not _has(scope, field, name)]
    insights = _insights(scope, email, domain, kind, guessed)
    insights += [f"Not given: {enumerate_words(missing)}."] if missing else []
    data: JsonObject = {
        "customerId": customer_id,
        "name": name,
        "email": email,
        "emailDomain": domain,
        "emailKind": kind,
        "company": company or guessed,
        "companySource": "given" if company else "email domain" if guessed else None,
        "segment": segment,
        "insights": [*insights],
        "missing": [*missing],
    }
    who = name or email or f"Customer {customer_id}"
    return Reply(
        response=" ".join([f"{who}: segment {segment}.", *insights]),
        confidence=round(0.35 + 0.12 * (len(_EXPECTED) - len(missing)), 2),
        data=data,
    )


def _customer_id(scope: InputScope) -> str | int | None:
    for key in ("id", "customerId", "customer_id", "userId"):
        found = scope.find(key)
        name = identifier(found.value) if found is not None else None
        if name is not None:
            return name
    return None


def _has(scope: InputScope, field: str, name: str | None) -> bool:
    return name is not None if field == "name" else scope.word(field) is not None


def normalized_name(scope: InputScope) -> str | None:
    """Returns the name in one Unicode form with single blanks; changes capitals only if all or none are capital."""
    name = scope.word("name", "fullName", "customerName")
    if name is None:
        given, family = scope.word("firstName", "first_name"), scope.word("lastName", "last_name")
        name = " ".join(part for part in (given, family) if part)
    name = " ".join(unicodedata.normalize("NFKC", name).split())
    if not name or not any(character.isalpha() for character in name):
        return None
    parts = name.split()
    main = "".join(part for part in parts if part not in _PARTICLES)
    if not (main.islower() or main.isupper() or not main):
        return name
    first, *rest = (part.casefold() for part in parts)
    return " ".join([_capitalized(first), *(part if part in _PARTICLES else _capitalized(part) for part in rest)])


def _capitalized(part: str) -> str:
    # O'Neill, Jean-Luc.
    return re.sub(r"(^|[-'\u2019])(\w)", lambda match: match.group(1) + match.group(2).upper(), part)


def classify_email(email: str | None) -> tuple[str | None, str]:
    """Returns the address's domain and its kind: company, freemail, disposable, education, government, invalid,
    none.
    """
    if email is None:
        return None, "none"
    match = _EMAIL.fullmatch(email)
    if match is None:
        return None, "invalid"
    domain = match.group(1)
    labels = domain.split(".")
    if domain in _FREEMAIL:
        return domain, "freemail"
    if domain in _DISPOSABLE:
        return domain, "disposable"
    if "edu" in labels[-2:] or (len(labels) > 2 and labels[-2] == "ac"):
        return domain, "education"
    if "gov" in labels[-2:] or labels[-1] == "mil":
        return domain, "government"
    return domain, "company"


def _company_of(domain: str | None) -> str | None:
    labels = (domain or "").split(".")[:-1]
    if len(labels) > 1 and labels[-1] in _CATEGORIES:
        labels.pop()
    return " ".join(map(_capitalized, labels[-1].split("-"))) if labels else None


def _segment(scope: InputScope, kind: str) -> str:
    employees = scope.number("employees", "companySize", "employeeCount")
    if employees is not None and employees >= 1:
        return "enterprise" if employees >= 1000 else "mid-market" if employees >= 50 else "small business"
    if kind in ("education", "government"):
        return kind
    if kind == "company" or scope.word("company", "companyName", "organization", "organisation"):
        return "business"
    return "consumer" if kind == "freemail" else "unknown"


_KIND_INSIGHTS = {
    "company": "Writes from a company's domain, {domain}.",
    "freemail": "Writes from a free mail service, {domain}: it does not identify the employer.",
    "disposable": "Uses a throw-away address at {domain}: verify before relying on it.",
    "education": "Writes from a school or university, {domain}.",
    "government": "Writes from a public authority, {domain}.",
    "invalid": "The email address is malformed: nothing can be delivered to it.",
}


def _insights(scope: InputScope, email: str | None, domain: str | None, kind: str, guessed: str | None) -> list[str]:
    insights = [_KIND_INSIGHTS[kind].format(domain=domain)] if kind in _KIND_INSIGHTS else []
    if guessed:
        insights.append(f"The company is probably {guessed}, going by the domain.")
    if domain and email and email.partition("@")[0] in _ROLES:
        insights.append("The mailbox belongs to a function, not to a person.")
    interactions = scope.number("previousInteractions", "interactions")
    if interactions is not None and interactions >= 0:
        warmth = "new" if interactions == 0 else "known" if interactions < 10 else "in close contact"
        insights.append(f"{show(interactions)} previous interactions: {warmth}.")
    if plan := scope.word("plan", "tier"):
        insights.append(f"On the {plan} plan.")
    return insights
