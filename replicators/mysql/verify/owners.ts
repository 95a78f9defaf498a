import type { Router } from '../../../src/routing/rules.js';
import type { DcId, UnitId } from '../../../src/routing/units.js';
import type { TableRouting } from '../../../src/topology/schema.js';
import { NULL, quote } from '../literal.js';
import { mappingRouter, unitReaderOf } from '../row-units.js';
import type { Mapping, UnitOfRow } from '../row-units.js';
import type { ComparedTable, RowImage } from './compared-table.js';

export interface RowOwner {
  /** null: the table is unrouted, or the images of the two sides belong to units of two owners. */
  unit: UnitId | null;
  owner: DcId | null;
}

/** The unit and the owner of rows, by the mapping that the links use and the rules in force. */
export class Owners {
  private readonly unitOfRow: UnitOfRow;

  constructor(table: ComparedTable, tables: Readonly<Record<string, TableRouting>>, mapping: Mapping) {
    const names = table.columns.map(({ name }) => name);
    this.unitOfRow = unitReaderOf(mappingRouter(mapping), tables, table.name, names);
  }

  unitOf(image: RowImage): UnitId | null {
    if (this.unitOfRow === null) return null;
    // The reader wants numbers and quoted text, as a link has them; routing columns are numbers or UTF-8 text.
    return this.unitOfRow(image.values.map((value) => (value === null ? NULL : quote(String(value)))));
  }

  /** Of one row; `images` are what the sides have of it. */
  ownerOf(router: Router, images: readonly (RowImage | null)[]): RowOwner {
    const units = images.flatMap((image) => (image === null ? [] : [this.unitOf(image)]));
    const [unit = null] = units;
    if (unit === null) return { unit: null, owner: null };
    const owners = new Set(units.map((one) => (one === null ? undefined : router.assignmentOf(one)?.owner)));
    const [owner] = owners;
    return owners.size === 1 && owner !== undefined ? { unit, owner } : { unit: null, owner: null };
  }

  unitsOf(images: readonly (RowImage | null)[]): UnitId[] {
    return images.flatMap((image) => (image === null ? [] : (this.unitOf(image) ?? [])));
  }
}
