"""PDF: the text that its pages draw, by pypdf."""

from io import BytesIO

from pypdf import PageObject, PasswordType, PdfReader, overwrite_configuration
from pypdf.errors import FileNotDecryptedError, LimitReachedError

from sevenfold.adapters.documents.limits import Extracted, Limits, too_demanding_error
from sevenfold.adapters.documents.plain import tidy, to_title, truncate
from sevenfold.contracts.document_errors import DocumentError, DocumentFault

# A balanced tree has fewer inner nodes than pages.
_TREE_NODES_PER_PAGE = 2


def extract(data: bytes, _charset: str | None, limits: Limits) -> Extracted:
    """The text of all pages, a blank line between two. A damaged page is counted, and the others are read.

    Raises DocumentError; of a file that is broken enough, anything.
    """
    # The helper program is for images, of which nothing is wanted here.
    overwrite_configuration(page_tree_maximum_entries=limits.pages * _TREE_NODES_PER_PAGE, jbig2dec_binary=None)
    try:
        reader = _open_pdf(data)
        pages = _pages(reader, limits.pages)
        texts, unread = _texts(pages, limits.characters)
    except LimitReachedError:
        raise too_demanding_error("room when unpacked") from None
    if pages and unread == len(pages):
        raise DocumentError(
            DocumentFault.BROKEN, "No page of the PDF can be read. Print it to a new PDF, or send its text."
        )
    found = truncate("\n\n".join(filter(None, texts)), limits.characters)
    return found._replace(title=_title(reader), pages=len(pages), unread_pages=unread)


def _open_pdf(data: bytes) -> PdfReader:
    """The file, opened with the empty password if it has one: that is how files are sealed which anybody may read."""
    try:
        reader = PdfReader(BytesIO(data))
        locked = reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED
    except (NotImplementedError, FileNotDecryptedError):  # certificates instead of a password
        locked = True
    if locked:
        raise DocumentError(
            DocumentFault.ENCRYPTED, "The PDF is protected by a password. Remove the protection and send it again."
        )
    return reader


def _pages(reader: PdfReader, max_pages: int) -> list[PageObject]:
    count = len(reader.pages)
    if count > max_pages:
        raise DocumentError(
            DocumentFault.TOO_LARGE,
            f"The PDF has {count:,} pages; {max_pages:,} are read of one at most. Send it in parts.",
        )
    return list(reader.pages)


def _texts(pages: list[PageObject], characters: int) -> tuple[list[str], int]:
    """The pages' texts, no more than are kept, and how many of the pages are damaged."""
    texts: list[str] = []
    unread = 0
    for page in pages:
        text = _text(page)
        if text is None:
            unread += 1
            continue
        texts.append(text)
        characters -= len(text)
        if characters < 0:
            break
    return texts, unread


def _text(page: PageObject) -> str | None:
    try:
        return tidy(page.extract_text())
    except (LimitReachedError, MemoryError):  # no damage, but a file that means harm
        raise
    except Exception:  # pypdf promises no more than that broken files cause some exception
        return None


def _title(reader: PdfReader) -> str | None:
    try:
        title = reader.metadata.title if reader.metadata else None
    except MemoryError:
        raise
    except Exception:  # as above, and a title is not worth a document
        return None
    return to_title(title or "")
