// The tables of the index, as the steps that lead from one version to the next.
//
// A new index takes all steps, an old one those it lacks, in one transaction, so both end with the
// same tables. An index of a later release is used as it stands if that release says so: `meta`
// holds `usable_from`, the oldest version whose release can work with it. A step that only adds
// tables, or columns that have a default, leaves that as it is, and an operator may go back and
// forth between the releases without losing the order of use. A step that changes the meaning of
// what is there sets `usable_from` to its own version; an older release then sets the index aside
// and rebuilds it from the blobs, as everybody does with an index that makes no sense (F36).
#pragma once

#include <array>

namespace staithe::cache {

struct SchemaStep {
  int version;  // what PRAGMA user_version is after it
  const char* sql;
};

inline constexpr std::array<SchemaStep, 2> schema_steps = {{
    {1, R"sql(
CREATE TABLE blobs(
  digest TEXT PRIMARY KEY, kind INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
  used_order INTEGER NOT NULL, used_unix_seconds INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE links(
  repository TEXT NOT NULL, digest TEXT NOT NULL, checked_unix_seconds INTEGER NOT NULL,
  PRIMARY KEY(digest, repository)) WITHOUT ROWID;
CREATE TABLE tags(
  repository TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
  checked_unix_seconds INTEGER NOT NULL, PRIMARY KEY(repository, tag)) WITHOUT ROWID;
)sql"},
    {2, R"sql(
ALTER TABLE blobs ADD COLUMN reused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blobs ADD COLUMN verified_unix_seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE blobs ADD COLUMN pulled_unix_seconds INTEGER NOT NULL DEFAULT 0;
CREATE TABLE marks(
  digest TEXT NOT NULL, number INTEGER NOT NULL, begin_bytes INTEGER NOT NULL,
  end_bytes INTEGER NOT NULL, content TEXT NOT NULL,
  PRIMARY KEY(digest, begin_bytes, end_bytes)) WITHOUT ROWID;
CREATE TABLE pins(
  repository TEXT NOT NULL, reference TEXT NOT NULL, digest TEXT NOT NULL,
  PRIMARY KEY(repository, reference, digest)) WITHOUT ROWID;
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES('usable_from', 2);
)sql"},
}};

inline constexpr int schema_version = schema_steps.back().version;

}  // namespace staithe::cache
