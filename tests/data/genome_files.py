"""Genomes as files: FASTA as people have it, packed as htslib does, and UCSC's .2bit."""

import gzip
import struct
import textwrap
import zlib

import numpy as np


def fasta(letters, width=60, end="\n", after="", between=""):
    return "".join(
        f">{name} assembled{end}"
        + "".join(line + after + end for line in textwrap.wrap(bases, width))
        + between
        for name, bases in letters.items()
    ).encode()


def ragged(letters):
    """Lines of 60, 31 and 60 bases."""
    return "".join(
        f">{name}\n" + "\n".join((bases[:60], bases[60:91], textwrap.fill(bases[91:], 60))) + "\n"
        for name, bases in letters.items()
    ).encode()


def bgzip(content, size=1000):
    """Blocks with their size in an extra field, and an empty one at the end (SAM, section 4.1)."""
    blocks = []
    for first in range(0, len(content) + size, size):
        part = content[first : first + size]
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(part) + packer.flush()
        head = struct.pack("<4BI2BH2BHH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(packed) + 25)
        blocks.append(head + packed + struct.pack("<II", zlib.crc32(part), len(part)))
    return b"".join(blocks)


def two_bit(letters, order="<", version=0):
    """As UCSC has it: index, then size, stretches of N, of lower case, and four bases a byte."""

    def stretches(bases, chosen):
        inside = np.array([0, *map(chosen, bases), 0])
        starts, stops = np.flatnonzero(np.diff(inside) == 1), np.flatnonzero(np.diff(inside) == -1)
        numbers = [starts.size, *starts, *(stops - starts)]
        return struct.pack(f"{order}{len(numbers)}I", *numbers)

    width = "IQ"[version]
    place = 16 + sum(1 + len(name) + struct.calcsize(width) for name in letters)
    index, records = b"", b""
    for name, bases in letters.items():
        place_of_record = struct.pack(order + width, place + len(records))
        index += bytes([len(name)]) + name.encode() + place_of_record
        codes = ["TCAG".find(letter) % 4 for letter in bases.upper()] + [0] * (-len(bases) % 4)
        packed = [64 * a + 16 * b + 4 * c + d for a, b, c, d in np.reshape(codes, (-1, 4))]
        records += struct.pack(f"{order}I", len(bases)) + stretches(
            bases, lambda base: base not in "ACGTacgt"
        )
        records += stretches(bases, str.islower) + bytes(4) + bytes(packed)
    return struct.pack(f"{order}4I", 0x1A412743, version, len(letters), 0) + index + records


def forms(letters):
    """Returns files of one genome by what is special about them."""
    plain = fasta(letters)
    return {
        "lines of 60": plain,
        "one line": fasta(letters, 10**6),
        "lines of one base": fasta(letters, 1),
        "no end of the last line": plain.rstrip(b"\n"),
        "CR LF": fasta(letters, end="\r\n"),
        "CR alone": fasta(letters, end="\r"),
        "CR alone, gzipped": gzip.compress(fasta(letters, end="\r")),
        "BOM": b"\xef\xbb\xbf" + plain,
        "trailing blanks": fasta(letters, after="  "),
        "a trailing tab in one line": plain.replace(b"\n", b"\t\n", 3),
        "blank lines between": fasta(letters, between="\n\n"),
        "blank lines within": fasta(letters, end="\n\n"),
        "lines of many lengths": ragged(letters),
        "comments": b"; by hand\n" + plain.replace(b"\n>", b"\n; next\n>", 2),
        "gzip": gzip.compress(plain),
        "two gzip members": gzip.compress(plain[:999]) + gzip.compress(plain[999:]),
        "bgzip": bgzip(plain),
        "2bit": two_bit(letters),
        "2bit of the other byte order": two_bit(letters, ">"),
        "2bit with long offsets": two_bit(letters, version=1),
    }
