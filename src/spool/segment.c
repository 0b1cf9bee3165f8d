/*
 * segment.c
 *		The spool's files: names, creation, reading, writing, removal.
 *
 * The only file of the extension that does file I/O.  Capture creates, writes
 * and removes; workers open and read.  The files lie where PostgreSQL keeps
 * temporary files, under names that begin with pgsql_tmp: base backups leave
 * them out and the start of the server removes them.  They are never fsynced,
 * because every event in them is still in the WAL.
 *
 * No locks.  Blocks on the disk only.  Files are virtual file descriptors that
 * belong to the process, not to a transaction: who opens one closes it.
 */
#include "postgres.h"
#include "base/compat.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/wait_event.h"

#include "base/failpoint.h"
#include "base/process.h"
#include "spool/segment.h"

/* One call of read or write moves at most this much. */
#define IO_CHUNK	((Size) 64 * 1024 * 1024)

#define TEMP_DIR	"base/" PG_TEMP_FILES_DIR

static void directory_path(char *path, Oid database);
static void segment_path(char *path, Oid database, uint32 segno);
static bool make_directory(const char *path);
static bool is_disk_full(void);
static const char *foreign_reason(const PplSpoolFileHeader *header,
								  Oid database, uint64 epoch, uint32 segno);
static void remove_file(const char *path);

File
ppl_spool_segment_create(const PplSpoolFileHeader *header)
{
	char		path[MAXPGPATH];
	char		directory[MAXPGPATH];
	File		file;

	directory_path(directory, header->database);
	segment_path(path, header->database, header->segno);
	if (!make_directory(TEMP_DIR) || !make_directory(directory))
		return -1;
	file = PathNameOpenFile(path, O_RDWR | O_CREAT | O_EXCL | PG_BINARY);
	if (file < 0)
	{
		if (is_disk_full())
			return -1;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create spool file \"%s\": %m", path),
				 errhint("Events stay in the WAL until they can be written.")));
	}

	if (!ppl_spool_segment_write(file, (const char *) header, sizeof(*header), 0))
	{
		FileClose(file);
		remove_file(path);
		return -1;
	}
	return file;
}

File
ppl_spool_segment_open(Oid database, uint64 epoch, uint32 segno)
{
	char		path[MAXPGPATH];
	File		file;
	PplSpoolFileHeader header;
	const char *reason;

	segment_path(path, database, segno);
	file = PathNameOpenFile(path, O_RDONLY | PG_BINARY);
	if (file < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open spool file \"%s\": %m", path),
				 errhint("A spool file that was removed is written again from the WAL.")));

	/* Nothing in here may leave the file open. */
	PG_TRY();
	{
		Size		got;

		got = ppl_spool_segment_read(file, (char *) &header, sizeof(header), 0);
		reason = got == sizeof(header) ?
			foreign_reason(&header, database, epoch, segno) :
			"The file is shorter than its header.";
	}
	PG_CATCH();
	{
		FileClose(file);
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (reason != NULL)
	{
		FileClose(file);
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("spool file \"%s\" does not belong here", path),
				 errdetail_internal("%s", reason),
				 errhint("Leave the directory \"%s\" to the server.",
						 TEMP_DIR)));
	}
	return file;
}

bool
ppl_spool_segment_write(File file, const char *data, Size len, off_t offset)
{
	while (len > 0)
	{
		int			chunk = (int) Min(len, IO_CHUNK);

		if (PPL_FAILPOINT_FAILS("spool-write"))
			return false;
		if (FileWrite(file, unconstify(char *, data), chunk, offset,
					  PG_WAIT_EXTENSION) != chunk)
		{
			if (is_disk_full())
				return false;
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write spool file \"%s\": %m",
							FilePathName(file)),
					 errhint("Events stay in the WAL until they can be written.")));
		}
		data += chunk;
		offset += chunk;
		len -= chunk;
	}
	return true;
}

Size
ppl_spool_segment_read(File file, char *data, Size len, off_t offset)
{
	Size		done = 0;

	while (done < len)
	{
		int			got;

		ppl_process_check();
		got = FileRead(file, data + done, (int) Min(len - done, IO_CHUNK),
					   offset + done, PG_WAIT_EXTENSION);
		if (got < 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read spool file \"%s\": %m",
							FilePathName(file)),
					 errhint("A spool file that was removed is written again from the WAL.")));
		if (got == 0)
			break;
		done += got;
	}
	return done;
}

void
ppl_spool_segment_unlink(Oid database, uint32 segno)
{
	char		path[MAXPGPATH];

	segment_path(path, database, segno);
	remove_file(path);
}

void
ppl_spool_segment_unlink_all(Oid database)
{
	char		path[MAXPGPATH];
	char		file_path[MAXPGPATH * 2];
	DIR		   *dir;
	struct dirent *entry;

	directory_path(path, database);
	dir = AllocateDir(path);
	if (dir == NULL && errno == ENOENT)
		return;

	/* ReadDirExtended reports a directory that could not be opened. */
	while ((entry = ReadDirExtended(dir, path, LOG)) != NULL)
	{
		if (strncmp(entry->d_name, PG_TEMP_FILE_PREFIX,
					strlen(PG_TEMP_FILE_PREFIX)) != 0)
			continue;
		snprintf(file_path, sizeof(file_path), "%s/%s", path, entry->d_name);
		remove_file(file_path);
	}
	if (dir != NULL)
		FreeDir(dir);

	if (rmdir(path) != 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove spool directory \"%s\": %m", path)));
}

static void
directory_path(char *path, Oid database)
{
	snprintf(path, MAXPGPATH, "%s/%s_pipeline_%u",
			 TEMP_DIR, PG_TEMP_FILE_PREFIX, database);
}

static void
segment_path(char *path, Oid database, uint32 segno)
{
	snprintf(path, MAXPGPATH, "%s/%s_pipeline_%u/%s.%08X",
			 TEMP_DIR, PG_TEMP_FILE_PREFIX, database,
			 PG_TEMP_FILE_PREFIX, segno);
}

/* False if there is no room for it. */
static bool
make_directory(const char *path)
{
	if (MakePGDirectory(path) == 0 || errno == EEXIST)
		return true;
	if (!is_disk_full())
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create spool directory \"%s\": %m", path),
				 errhint("Events stay in the WAL until they can be written.")));
	return false;
}

/* By errno: is it only that there is no room? */
static bool
is_disk_full(void)
{
	return errno == ENOSPC || errno == EDQUOT;
}

/*
 * Why a file must not be read, as a sentence, or NULL if it may.
 */
static const char *
foreign_reason(const PplSpoolFileHeader *header, Oid database, uint64 epoch,
			   uint32 segno)
{
	if (header->magic != PPL_SPOOL_MAGIC)
		return "It is not a spool file.";
	if (header->version != PPL_SPOOL_VERSION)
		return "Another version of the extension wrote it.";
	if (header->system_identifier != GetSystemIdentifier())
		return "Another database cluster wrote it.";
	if (header->epoch != epoch)
		return "An earlier start of this server wrote it.";
	if (header->database != database)
		return "It belongs to another database.";
	if (header->segno != segno)
		return "It was renamed.";
	return NULL;
}

static void
remove_file(const char *path)
{
	if (unlink(path) != 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove spool file \"%s\": %m", path)));
}
