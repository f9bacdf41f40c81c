"""PDF: extracts the text of the pages by pypdf."""

from io import BytesIO

from pypdf import PageObject, PasswordType, PdfReader, overwrite_configuration
from pypdf.errors import FileNotDecryptedError, LimitReachedError

from sevenfold.adapters.documents.limits import DocumentLimits, Extracted, too_demanding_error
from sevenfold.adapters.documents.plain import tidy, to_title, truncate
from sevenfold.contracts.agents.document_errors import DocumentError, DocumentFault

# A balanced page tree has fewer inner nodes than pages.
_TREE_NODES_PER_PAGE = 2


def extract(data: bytes, _charset: str | None, limits: DocumentLimits) -> Extracted:
    """Returns the text of all pages, with a blank line between two. Damaged pages are counted and skipped.

    Raises DocumentError; a damaged file may raise anything.
    """
    # The helper program decodes images, which are not needed here.
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
    """Opens the file, with the empty password if it is encrypted: files that anybody may read are encrypted with
    it.
    """
    try:
        reader = PdfReader(BytesIO(data))
        locked = reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED
    except (NotImplementedError, FileNotDecryptedError):  # Encrypted by certificates instead of a password.
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
            f"The PDF has {count:,} pages; the limit is {max_pages:,}. Send it in parts.",
        )
    return list(reader.pages)


def _texts(pages: list[PageObject], characters: int) -> tuple[list[str], int]:
    """Returns the pages' texts up to the limit, and the number of damaged pages."""
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
    except (LimitReachedError, MemoryError):  # Not damage, but a file that exceeds a limit.
        raise
    except Exception:  # pypdf guarantees only that damaged files raise some exception.
        return None


def _title(reader: PdfReader) -> str | None:
    try:
        title = reader.metadata.title if reader.metadata else None
    except MemoryError:
        raise
    except Exception:  # As above; a damaged title does not fail the document.
        return None
    return to_title(title or "")
